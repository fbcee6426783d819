// Progress of building a voice, one line a step. Renders a status; requests nothing.
import { STEPS, isBeingMade, sayStep } from "./voice-profile.js";
import { say } from "./ui-strings.js";

const element = (id) => document.getElementById(id);

export class BuildProgress {
  #spoken = "";

  constructor() {
    const items = STEPS.map((step) => {
      const item = document.createElement("li");
      item.dataset.step = step;
      item.textContent = sayStep(step);
      return item;
    });
    element("making-steps").replaceChildren(...items);
  }

  /** Show `status`, of which a profile has the same parts. */
  show(status) {
    const isBusy = isBeingMade(status);
    element("making").hidden = !isBusy;
    element("failure").hidden = status.state !== "failed";
    if (status.state === "failed") element("failure-text").textContent = status.error?.detail ?? say("failedUnknown");
    if (!isBusy) return;
    const current = status.state === "pending" ? 0 : Math.max(0, STEPS.indexOf(status.step));
    const bar = element("making-bar");
    if (status.state === "pending") bar.removeAttribute("value");
    else bar.value = status.progress ?? 0;
    [...element("making-steps").children].forEach((item, index) => {
      item.classList.toggle("is-done", index < current);
      if (index === current) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    });
    const text = sayStep(STEPS[current]);
    if (this.#spoken !== text) element("making-status").textContent = text;
    this.#spoken = text;
  }
}
