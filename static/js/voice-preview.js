// Voice previews: asks the server to speak a sentence in a voice, then plays it. One at a time.
import { call } from "./api.js";
import { byIdOrNull } from "./dom.js";
import { config, profileAddress } from "./page-config.js";
import { showError } from "./page-notice.js";
import { Replay } from "./replay.js";
import { say } from "./ui-strings.js";

const KEY = "avatar.sentence";
const PREVIEW_QUALITY = "fast";

/** @import { VoiceProfile } from "./voice-types.js" */

export class VoicePreview {
  replay = new Replay();
  /** The button whose preview is being prepared. @type {HTMLElement | null} */
  #wanted = null;

  constructor() {
    this.field = byIdOrNull("sentence", HTMLInputElement);
    this.status = document.getElementById("listening");
    this.idleText = this.status?.textContent ?? "";
    const { field } = this;
    if (field) {
      field.value = read();
      field.addEventListener("input", () => write(field.value));
    }
    this.replay.onended = () => this.#say(this.idleText);
    this.replay.onblocked = () => this.#say(say("pressAgain"));
    this.replay.onerror = () => this.#say(say("cannotPlay"));
  }

  get isPlaying() {
    return this.replay.isPlaying;
  }

  /**
   * Speak the sentence in the voice of `profile`; stop, if `button` is the one that plays.
   *
   * @param {VoiceProfile} profile
   * @param {HTMLElement} button
   * @param {string} [quality]
   */
  async toggle(profile, button, quality = PREVIEW_QUALITY) {
    const isSame = this.#wanted === button || this.replay.button === button;
    this.stop();
    if (isSame) return;
    this.#wanted = button;
    button.setAttribute("aria-busy", "true");
    this.#say(say("preparing"));
    this.replay.unlock();
    try {
      const text = this.field?.value.trim() || config.sentences[profile.language] || config.sentences.zh;
      const preview = await call("POST", profileAddress(profile.id, "/preview"), { text, quality });
      if (this.#wanted !== button) return;
      this.replay.toggle(preview.audio_url, button);
      const isLess = quality === "high_quality" && preview.quality === "fast";
      this.#say(isLess ? `${say("onlyFast")} ${say("playing")}` : say("playing"));
    } catch (error) {
      if (this.#wanted !== button) return;
      this.#say(this.idleText);
      showError(error, () => this.toggle(profile, button, quality));
    } finally {
      button.removeAttribute("aria-busy");
      if (this.#wanted === button) this.#wanted = null;
    }
  }

  /** Play a stored recording. @param {string} url @param {HTMLElement} button */
  toggleRecording(url, button) {
    this.#wanted?.removeAttribute("aria-busy");
    this.#wanted = null;
    this.#say(this.idleText);
    this.replay.toggle(url, button);
  }

  stop() {
    this.#wanted?.removeAttribute("aria-busy");
    this.#wanted = null;
    this.replay.stop();
    this.#say(this.idleText);
  }

  /** @param {string} text */
  #say(text) {
    if (this.status && this.status.textContent !== text) this.status.textContent = text;
  }
}

function read() {
  try {
    return localStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

/** @param {string} sentence */
function write(sentence) {
  try {
    localStorage.setItem(KEY, sentence);
  } catch {
    // Without storage the sentence lasts for this page.
  }
}
