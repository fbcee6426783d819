// Polls the status of voices that are being built or fitted, while the page is visible.
import { ApiError, call } from "./api.js";
import { profileAddress } from "./page-config.js";
import { isBeingFitted, isBeingMade } from "./voice-profile.js";

/** @import { VoiceProfile, VoiceStatus } from "./voice-types.js" */

const EVERY_MS = 1_000;
const AFTER_FAILURE_MS = 4_000;

export class VoiceStatusPoller {
  /** By the id of a voice. @type {Map<string, ReturnType<typeof setTimeout>>} */
  #timers = new Map();

  onstatus = (/** @type {string} */ _id, /** @type {VoiceStatus} */ _status) => {};
  /** A voice was built, failed or was fitted. @type {(id: string) => unknown} */
  onsettled = () => {};
  onerror = (/** @type {string} */ _id, /** @type {ApiError} */ _error) => {};

  /** @param {VoiceProfile} profile */
  follow(profile) {
    if (!isBeingMade(profile) && !isBeingFitted(profile)) return;
    if (!this.#timers.has(profile.id)) this.#schedule(profile.id, EVERY_MS);
  }

  /** @param {string} id */
  forget(id) {
    clearTimeout(this.#timers.get(id));
    this.#timers.delete(id);
  }

  /** @param {string} id @param {number} delayMs */
  #schedule(id, delayMs) {
    this.#timers.set(
      id,
      setTimeout(() => this.#ask(id), delayMs),
    );
  }

  /** @param {string} id */
  async #ask(id) {
    if (document.hidden) {
      this.#schedule(id, EVERY_MS);
      return;
    }
    try {
      const status = await call("GET", profileAddress(id, "/status"));
      if (!this.#timers.has(id)) return;
      const isBusy = isBeingMade(status) || isBeingFitted(status);
      if (isBusy) this.#schedule(id, EVERY_MS);
      else this.#timers.delete(id);
      this.onstatus(id, status);
      if (!isBusy) this.onsettled(id);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (!this.#timers.has(id)) return;
      if (error.code === "gone" || error.code === "expired") this.#timers.delete(id);
      else this.#schedule(id, AFTER_FAILURE_MS); // a server that restarts comes back
      this.onerror(id, error);
    }
  }
}
