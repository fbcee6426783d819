// Downloads an export while the server makes it. With a file picker it streams to disk and shows progress; other browsers
// download it themselves. The file is never held in memory.
import { ApiError, csrfToken, isAbort, open } from "./api.js";
import { say } from "./ui-strings.js";

const SHOWN_MS = 10_000;

export class ExportDownload {
  /** @type {AbortController | null} */
  #abort = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #hiding;

  /** @param {{ element: HTMLElement, text: HTMLElement, progress: HTMLProgressElement, cancel: HTMLElement }} elements */
  constructor({ element, text, progress, cancel }) {
    this.element = element;
    this.text = text;
    this.progress = progress;
    this.cancel = cancel;
    cancel.addEventListener("click", () => this.#abort?.abort());
  }

  /**
   * Download an export. Returns when the person cancels; throws ApiError.
   *
   * @param {string} url
   * @param {string} name suggested for the file
   * @param {Record<string, unknown>} [body]
   */
  async fetch(url, name, body = {}) {
    if (this.#abort) return;
    const abort = new AbortController();
    this.#abort = abort;
    try {
      // First: a browser allows the question only soon after the click.
      const file = await chooseFile(name);
      this.#show(say("transferBegins"), { isRunning: true });
      const response = await open("POST", url, body, abort.signal);
      const expected = Number(response.headers.get("X-Expected-Bytes"));
      if (file) {
        await this.#write(response, file, expected, abort);
        this.element.hidden = true;
      } else {
        // The server has accepted. What it sends now would be held in memory: let the browser request it again by itself.
        abort.abort();
        submit(url, body);
        this.#show(say("transferredByBrowser", { megabytes: sayMegabytes(expected) }), { isRunning: false });
      }
    } catch (error) {
      this.element.hidden = true;
      // Cancelled before the answer began, or while it came.
      if (!(error instanceof ApiError)) {
        if (!isAbort(error)) throw new ApiError({ code: "unreachable" });
      } else if (error.code !== "cancelled") {
        throw error;
      }
    } finally {
      this.#abort = null;
    }
  }

  /**
   * @param {Response} response
   * @param {FileSystemFileHandle} file
   * @param {number} expected bytes; 0 or NaN: unknown
   * @param {AbortController} abort
   */
  async #write(response, file, expected, abort) {
    if (!response.body) throw new ApiError({ code: "unreachable" });
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
      abort.abort();
      await writable.abort().catch(() => {});
      throw error;
    }
    await writable.close();
  }

  /** @param {string} text @param {{ isRunning: boolean }} options */
  #show(text, { isRunning }) {
    clearTimeout(this.#hiding);
    this.text.textContent = text;
    this.progress.removeAttribute("value");
    this.progress.hidden = this.cancel.hidden = !isRunning;
    this.element.hidden = false;
    if (isRunning) return;
    this.#hiding = setTimeout(() => {
      this.element.hidden = true;
    }, SHOWN_MS);
  }
}

/** @param {number} bytes */
function sayMegabytes(bytes) {
  return (bytes / 1e6).toFixed(1);
}

/** Return the file to write into, or null where pages may not write. Throws AbortError when the person chooses none. @param {string} name */
async function chooseFile(name) {
  if (!window.showSaveFilePicker) return null;
  try {
    return await window.showSaveFilePicker({ suggestedName: name });
  } catch (error) {
    if (isAbort(error)) throw error;
    return null; // forbidden here
  }
}

/** Submit a form: the response is an attachment, so the page stays. @param {string} url @param {Record<string, unknown>} body */
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
