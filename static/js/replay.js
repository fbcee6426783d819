// Plays one kept recording at a time. Knows buttons and addresses, nothing of the call.
import { say } from "./words.js";

export class Replay {
  #audio = new Audio();
  #button = null;

  onerror = () => {};

  constructor() {
    this.#audio.addEventListener("ended", () => this.stop());
    this.#audio.addEventListener("error", () => {
      if (!this.#button) return;
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
    this.#audio.src = url;
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
