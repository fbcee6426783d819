// Plays one stored recording at a time. Knows buttons and addresses, nothing of the call.
import { say } from "./ui-strings.js";

const RETRIES = 2;
const RETRY_AFTER_MS = 900;

export class Replay {
  #audio = new Audio();
  /** @type {HTMLElement | null} */
  #button = null;
  #url = "";
  #retries = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retryTimer;

  onerror = () => {};
  onended = () => {};
  /** The browser requires another press before it plays. */
  onblocked = () => {};

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

  /** The button whose recording is playing, or null. */
  get button() {
    return this.#button;
  }

  get playedS() {
    return this.#audio.currentTime;
  }

  /** Call it in a press whose sound comes later: some browsers play only what a press asked for. */
  unlock() {
    if (this.#audio.src === "") this.#audio.load();
  }

  /** @param {string} url @param {HTMLElement} button */
  toggle(url, button) {
    const isSame = this.#button === button;
    this.stop();
    if (isSame) return;
    this.#button = button;
    mark(button, true);
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
    mark(this.#button, false);
    this.#button = null;
    this.#audio.pause();
  }
}

/** @param {HTMLElement} button @param {boolean} isPlaying */
function mark(button, isPlaying) {
  button.setAttribute("aria-pressed", String(isPlaying));
  if (button.querySelector("span")) return; // its text says what it does
  button.dataset.label ??= button.getAttribute("aria-label") ?? say("play");
  const label = isPlaying ? say("stopPlaying") : button.dataset.label;
  button.setAttribute("aria-label", label);
  button.title = label;
}
