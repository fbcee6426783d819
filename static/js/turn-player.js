// The player of one turn: button, waveform to seek in, time. Its audio element is made when first needed.
import { isAbort } from "./api.js";
import { find } from "./dom.js";
import { formatClock } from "./format.js";
import { say } from "./ui-strings.js";
import { drawWaveform, FLAT, measureLoudness } from "./waveform.js";

const SEEK_STEP_MS = 2_000;

export class TurnPlayer {
  onstarted = () => {};
  onended = (/** @type {boolean} */ _wasPlayedToItsEnd) => {};
  onerror = () => {};

  /** @type {HTMLAudioElement | null} */
  #audio = null;
  #levels = FLAT;
  #isLoading = false;
  #pace = 1;
  #frame = 0;

  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element;
    this.url = element.dataset.audioUrl ?? "";
    this.durationMs = Number(element.dataset.durationMs);
    this.button = find(element, ".player-play", HTMLButtonElement);
    this.wave = find(element, ".player-wave", HTMLCanvasElement);
    this.time = find(element, ".player-time");
    this.button.disabled = false; // a press before this script has come would be lost
    this.button.addEventListener("click", () => (this.isPlaying ? this.stop() : this.play()));
    this.wave.addEventListener("pointerdown", (event) => this.#seekTo(event.offsetX / this.wave.clientWidth));
    this.wave.addEventListener("keydown", (event) => this.#handleKey(event));
    new ResizeObserver(() => this.#draw()).observe(this.wave);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  get isPlaying() {
    return this.#audio !== null && !this.#audio.paused;
  }

  /** Fetch the recording and show its loudness. It comes from the browser's cache when it is played afterwards. */
  async load() {
    if (this.#isLoading) return;
    this.#isLoading = true;
    try {
      const response = await fetch(this.url);
      if (!response.ok) return;
      this.#levels = await measureLoudness(await response.arrayBuffer());
      this.#draw();
    } catch {
      // It can be played all the same, or says why when it is.
    }
  }

  /** @param {number} value */
  set pace(value) {
    this.#pace = value;
    if (this.#audio) this.#audio.playbackRate = value;
  }

  async play() {
    const audio = this.#makeAudio();
    audio.playbackRate = this.#pace;
    this.onstarted();
    try {
      await audio.play();
    } catch (error) {
      if (!isAbort(error)) this.#fail();
    }
  }

  stop() {
    this.#audio?.pause();
  }

  rewind() {
    if (this.#audio) this.#audio.currentTime = 0;
  }

  /** Return the audio element, which is made the first time. */
  #makeAudio() {
    if (this.#audio) return this.#audio;
    const audio = new Audio(this.url);
    this.#audio = audio;
    audio.preservesPitch = true;
    audio.addEventListener("play", () => this.#mark(true));
    audio.addEventListener("pause", () => {
      this.#mark(false);
      if (!audio.ended) this.onended(false);
    });
    audio.addEventListener("ended", () => {
      this.#mark(false);
      audio.currentTime = 0;
      this.#draw();
      this.onended(true);
    });
    audio.addEventListener("error", () => this.#fail());
    return audio;
  }

  #fail() {
    this.#mark(false);
    this.#audio = null;
    this.onended(false);
    this.onerror();
  }

  /** @param {boolean} isPlaying */
  #mark(isPlaying) {
    const label = say(isPlaying ? "stopPlaying" : "play");
    this.button.setAttribute("aria-pressed", String(isPlaying));
    this.button.setAttribute("aria-label", label);
    this.button.title = label;
    cancelAnimationFrame(this.#frame);
    if (isPlaying) this.#follow();
    else this.#draw();
  }

  #follow() {
    this.#draw();
    this.#frame = requestAnimationFrame(() => this.#follow());
  }

  /** @param {KeyboardEvent} event */
  #handleKey(event) {
    const { key } = event;
    const position = (this.#audio?.currentTime ?? 0) * 1000;
    if (key === "ArrowRight") this.#seekTo((position + SEEK_STEP_MS) / this.durationMs);
    else if (key === "ArrowLeft") this.#seekTo((position - SEEK_STEP_MS) / this.durationMs);
    else if (key === "Enter" || key === " ") {
      if (this.isPlaying) this.stop();
      else this.play();
    } else return;
    event.preventDefault();
  }

  /** @param {number} share of the duration */
  #seekTo(share) {
    this.#makeAudio().currentTime = (Math.min(1, Math.max(0, share)) * this.durationMs) / 1000;
    this.#draw();
  }

  #draw() {
    const positionMs = (this.#audio?.currentTime ?? 0) * 1000;
    drawWaveform(this.wave, this.#levels, this.durationMs ? positionMs / this.durationMs : 0);
    this.wave.setAttribute("aria-valuenow", String(Math.round(positionMs)));
    this.wave.setAttribute("aria-valuetext", `${formatClock(positionMs)} / ${formatClock(this.durationMs)}`);
    this.time.textContent =
      positionMs > 0 ? `${formatClock(positionMs)} / ${formatClock(this.durationMs)}` : formatClock(this.durationMs);
  }
}
