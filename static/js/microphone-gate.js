// Decides which microphone frames go to the server. Pure: keeps frames, sends none.
import { HANDS_FREE } from "./call-step.js";

/** @import { CallState } from "./call-types.js" */

const PREROLL_FRAMES = 15; // 300 ms: people start to speak while they press
const SILENCE_AFTER_MUTE_FRAMES = 175; // 3.5 s: the server counts a pause in audio received, at most 3 s

export class MicrophoneGate {
  /** @type {ArrayBuffer[]} */
  #preroll = [];
  #mutedFrames = 0;

  /**
   * Take a frame, and return whether it is to be sent now. Hold to talk, the latest frames are kept for `takePreroll`.
   *
   * @param {ArrayBuffer} frame
   * @param {CallState} state
   */
  accept(frame, { settings, isHolding }) {
    if (settings.mode === HANDS_FREE) {
      this.#mutedFrames = settings.is_muted ? this.#mutedFrames + 1 : 0;
      return this.#mutedFrames <= SILENCE_AFTER_MUTE_FRAMES;
    }
    if (isHolding) return true;
    this.#preroll.push(frame);
    if (this.#preroll.length > PREROLL_FRAMES) this.#preroll.shift();
    return false;
  }

  /** Return the frames from before the key was pressed, once. */
  takePreroll() {
    const frames = this.#preroll;
    this.#preroll = [];
    return frames;
  }
}
