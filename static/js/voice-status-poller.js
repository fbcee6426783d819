// Polls the status of voices that are being built or fitted, while the page is visible.
import { call } from "./api.js";
import { profileAddress } from "./page-config.js";
import { isBeingFitted, isBeingMade } from "./voice-profile.js";

const EVERY_MS = 1_000;
const AFTER_FAILURE_MS = 4_000;

export class VoiceStatusPoller {
  #timers = new Map();

  onstatus = () => {}; // (id, status)
  onsettled = () => {}; // (id): made, failed or fitted
  onerror = () => {}; // (id, ApiError)

  follow(profile) {
    if (!isBeingMade(profile) && !isBeingFitted(profile)) return;
    if (!this.#timers.has(profile.id)) this.#schedule(profile.id, EVERY_MS);
  }

  forget(id) {
    clearTimeout(this.#timers.get(id));
    this.#timers.delete(id);
  }

  #schedule(id, delayMs) {
    this.#timers.set(
      id,
      setTimeout(() => this.#ask(id), delayMs),
    );
  }

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
      if (!this.#timers.has(id)) return;
      if (error.code === "gone" || error.code === "expired") this.#timers.delete(id);
      else this.#schedule(id, AFTER_FAILURE_MS); // a server that restarts comes back
      this.onerror(id, error);
    }
  }
}
