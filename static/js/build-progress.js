// Progress of building a voice, one line a step. Renders a status; requests nothing.
import { byId } from "./dom.js";
import { say } from "./ui-strings.js";
import { STEPS, isBeingMade, sayStep } from "./voice-profile.js";

/** @import { VoiceStatus } from "./voice-types.js" */

export class BuildProgress {
  #spoken = "";

  constructor() {
    const items = STEPS.map((step) => {
      const item = document.createElement("li");
      item.dataset.step = step;
      item.textContent = sayStep(step);
      return item;
    });
    byId("build-progress-steps").replaceChildren(...items);
  }

  /** Show the status of a voice. @param {VoiceStatus} status */
  show(status) {
    const isBusy = isBeingMade(status);
    byId("build-progress").hidden = !isBusy;
    byId("failure").hidden = status.state !== "failed";
    if (status.state === "failed") byId("failure-text").textContent = status.error?.detail ?? say("failedUnknown");
    if (!isBusy) return;
    const current = status.state === "pending" ? 0 : Math.max(0, STEPS.indexOf(status.step));
    const bar = byId("build-progress-bar", HTMLProgressElement);
    if (status.state === "pending") bar.removeAttribute("value");
    else bar.value = status.progress ?? 0;
    [...byId("build-progress-steps").children].forEach((item, index) => {
      item.classList.toggle("is-done", index < current);
      if (index === current) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    });
    const text = sayStep(STEPS[current]);
    if (this.#spoken !== text) byId("build-progress-status").textContent = text;
    this.#spoken = text;
  }
}
