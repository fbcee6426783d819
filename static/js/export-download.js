// Downloads an export while the server makes it. With a file picker it streams to disk and shows progress; other browsers
// download it themselves. The file is never held in memory.
import { ApiError, csrfToken, open } from "./api.js";
import { say } from "./ui-strings.js";

const SAID_MS = 10_000;

export class ExportDownload {
  #abort = null;
  #silence = 0;

  constructor({ element, text, progress, cancel }) {
    Object.assign(this, { element, text, progress, cancel });
    cancel.addEventListener("click", () => this.#abort?.abort());
  }

  /** Throws ApiError. Returns without a word when the person cancels. */
  async fetch(url, name, body = {}) {
    if (this.#abort) return;
    this.#abort = new AbortController();
    try {
      // First of all: a browser lets nobody ask long after the click.
      const file = await chooseFile(name);
      this.#show(say("transferBegins"), { isRunning: true });
      const response = await open("POST", url, body, this.#abort.signal);
      const expected = Number(response.headers.get("X-Expected-Bytes"));
      if (file) {
        await this.#write(response, file, expected);
        this.element.hidden = true;
      } else {
        // The server has agreed to it. What it sends now would have to be kept here: the browser asks once more, by itself.
        this.#abort.abort();
        submit(url, body);
        this.#show(say("transferredByBrowser", { megabytes: sayMegabytes(expected) }), { isRunning: false });
      }
    } catch (error) {
      this.element.hidden = true;
      // Cancelled before the answer began, or while it came.
      if (error.code !== "cancelled" && error.name !== "AbortError") {
        throw error instanceof ApiError ? error : new ApiError({ code: "unreachable" });
      }
    } finally {
      this.#abort = null;
    }
  }

  async #write(response, file, expected) {
    const writable = await file.createWritable();
    try {
      let received = 0;
      const reader = response.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        await writable.write(value);
        received += value.length;
        if (expected) this.progress.value = Math.min(1, received / expected);
        this.text.textContent = say("transferred", { megabytes: sayMegabytes(received) });
      }
    } catch (error) {
      this.#abort.abort();
      await writable.abort().catch(() => {});
      throw error;
    }
    await writable.close();
  }

  #show(text, { isRunning }) {
    clearTimeout(this.#silence);
    this.text.textContent = text;
    this.progress.removeAttribute("value");
    this.progress.hidden = this.cancel.hidden = !isRunning;
    this.element.hidden = false;
    if (!isRunning) this.#silence = setTimeout(() => (this.element.hidden = true), SAID_MS);
  }
}

function sayMegabytes(bytes) {
  return (bytes / 1e6).toFixed(1);
}

/** The file to write into, or null where pages may not write. Throws AbortError when the person chooses none. */
async function chooseFile(name) {
  if (!window.showSaveFilePicker) return null;
  try {
    return await window.showSaveFilePicker({ suggestedName: name });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return null; // forbidden here
  }
}

/** Send a form: the answer is an attachment, so the page stays. */
function submit(url, body) {
  const form = document.createElement("form");
  Object.assign(form, { method: "post", action: url, hidden: true });
  const fields = Object.entries({ csrfmiddlewaretoken: csrfToken(), ...body });
  for (const [name, value] of fields.flatMap(([name, values]) => [values].flat().map((value) => [name, value]))) {
    form.append(Object.assign(document.createElement("input"), { type: "hidden", name, value }));
  }
  document.body.append(form);
  form.submit();
  form.remove();
}
