// Plays one kept recording at a time. Knows buttons and addresses, nothing of the call.
import { say } from "./ui-strings.js";

const RETRIES = 2;
const RETRY_AFTER_MS = 900;

export class Replay {
  #audio = new Audio();
  #button = null;
  #url = "";
  #retries = 0;
  #retryTimer = 0;

  onerror = () => {};
  onended = () => {};
  onblocked = () => {}; // the browser wants another press before it plays

  constructor() {
    this.#audio.addEventListener("ended", () => {
      this.stop();
      this.onended();
    });
    this.#audio.addEventListener("error", () => {
      if (!this.#button) return;
      // A turn that has only just ended is still being saved.
      if (this.#retries > 0) {
        this.#retries -= 1;
        this.#retryTimer = setTimeout(() => this.#load(), RETRY_AFTER_MS);
        return;
      }
      this.stop();
      this.onerror();
    });
  }

  get isPlaying() {
    return this.#button !== null;
  }

  /** The button whose recording plays, or null. */
  get button() {
    return this.#button;
  }

  get playedS() {
    return this.#audio.currentTime;
  }

  /** Call it in a press whose sound comes later: some browsers play only what a press has asked for. */
  unlock() {
    if (this.#audio.src === "") this.#audio.load();
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
    this.#audio.play().catch((error) => {
      // The error event says why a load failed; an interrupted load is no error.
      if (error.name !== "NotAllowedError") return;
      this.stop();
      this.onblocked();
    });
  }

  stop() {
    clearTimeout(this.#retryTimer);
    if (!this.#button) return;
    this.#mark(false);
    this.#button = null;
    this.#audio.pause();
  }

  #mark(isPlaying) {
    const button = this.#button;
    button.setAttribute("aria-pressed", String(isPlaying));
    if (button.querySelector("span")) return; // its text says what it does
    button.dataset.label ??= button.getAttribute("aria-label") ?? say("play");
    const label = isPlaying ? say("stopPlaying") : button.dataset.label;
    button.setAttribute("aria-label", label);
    button.title = label;
  }
}
