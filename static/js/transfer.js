// Fetches a file that the server makes while it sends it, with progress, and hands it to the browser to keep.
import { ApiError, open } from "./api.js";
import { say } from "./words.js";

export class Transfer {
  #abort = null;

  constructor({ element, text, progress, cancel }) {
    Object.assign(this, { element, text, progress });
    cancel.addEventListener("click", () => this.#abort?.abort());
  }

  /** Throws ApiError. Returns without a word when the person cancels. */
  async fetch(url, name, body = {}) {
    if (this.#abort) return;
    this.#abort = new AbortController();
    this.element.hidden = false;
    this.progress.removeAttribute("value");
    this.text.textContent = say("transferBegins");
    try {
      const response = await open("POST", url, body, this.#abort.signal);
      const expected = Number(response.headers.get("X-Expected-Bytes"));
      save(await this.#read(response, expected), fileName(response) ?? name);
    } catch (error) {
      // Cancelled before the answer began, or while it came.
      if (error.code !== "cancelled" && error.name !== "AbortError") {
        throw error instanceof ApiError ? error : new ApiError({ code: "unreachable" });
      }
    } finally {
      this.#abort = null;
      this.element.hidden = true;
    }
  }

  async #read(response, expected) {
    const pieces = [];
    let received = 0;
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      pieces.push(value);
      received += value.length;
      if (expected) this.progress.value = Math.min(1, received / expected);
      this.text.textContent = say("transferred", { megabytes: (received / 1e6).toFixed(1) });
    }
    return new Blob(pieces, { type: response.headers.get("Content-Type") });
  }
}

function fileName(response) {
  const disposition = response.headers.get("Content-Disposition") ?? "";
  const encoded = disposition.match(/filename\*=UTF-8''([^;]+)/i)?.[1];
  return encoded ? decodeURIComponent(encoded) : disposition.match(/filename="([^"]+)"/)?.[1];
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
