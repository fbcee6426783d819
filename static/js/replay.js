// Plays one kept recording at a time. Knows buttons and addresses, nothing of the call.
import { say } from "./words.js";

const RETRIES = 2;
const RETRY_AFTER_MS = 900;

export class Replay {
  #audio = new Audio();
  #button = null;
  #url = "";
  #retries = 0;

  onerror = () => {};

  constructor() {
    this.#audio.addEventListener("ended", () => this.stop());
    this.#audio.addEventListener("error", () => {
      if (!this.#button) return;
      // A turn that has only just ended is still being saved.
      if (this.#retries > 0) {
        this.#retries -= 1;
        setTimeout(() => this.#load(), RETRY_AFTER_MS);
        return;
      }
      this.stop();
      this.onerror();
    });
  }

  get isPlaying() {
    return this.#button !== null;
  }

  toggle(url, button) {
    const isSame = this.#button === button;
    this.stop();
    if (isSame) return;
    this.#button = button;
    this.#mark(true);
    this.#url = url;
    this.#retries = RETRIES;
    this.#load();
  }

  #load() {
    if (!this.#button) return;
    this.#audio.src = this.#url;
    this.#audio.play().catch(() => {
      // The error event says why; an interrupted load is no error.
    });
  }

  stop() {
    if (!this.#button) return;
    this.#mark(false);
    this.#button = null;
    this.#audio.pause();
  }

  #mark(isPlaying) {
    const label = say(isPlaying ? "stopPlaying" : "play");
    this.#button.setAttribute("aria-pressed", String(isPlaying));
    this.#button.setAttribute("aria-label", label);
    this.#button.title = label;
  }
}
