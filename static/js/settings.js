// What a person chose: kept in this browser, shown in the sheet. Knows the names of the protocol's `configure`, not the socket.
// The voice and its quality are kept by the server: they are the person's, on every machine.
import { say } from "./ui-strings.js";

const KEY = "avatar.settings";
const KEPT_BY_SERVER = ["voice_profile_id", "quality"];

export class Settings {
  onchange = () => {}; // (name)

  constructor(dialog, defaults) {
    this.dialog = dialog;
    this.form = dialog.querySelector("form");
    this.values = { ...defaults };
    for (const [name, value] of Object.entries(this.#read())) {
      if (name in defaults && !KEPT_BY_SERVER.includes(name) && typeof value === typeof defaults[name]) this.values[name] = value;
    }
    this.#fill();
    this.form.addEventListener("input", ({ target }) => this.#take(target));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      dialog.close();
    });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // the shade around the sheet
    });
  }

  open(section) {
    this.dialog.showModal();
    const target = section && this.dialog.querySelector(`[data-section="${section}"]`);
    if (target) {
      target.scrollIntoView({ block: "start" });
      target.querySelector("input:checked, input, select")?.focus({ preventScroll: true });
    }
  }

  set(name, value) {
    this.values[name] = value;
    this.#write();
    this.#fill();
    this.onchange(name);
  }

  /** Mark what is chosen in a form that has changed. */
  refill() {
    this.#fill();
  }

  #read() {
    try {
      return JSON.parse(localStorage.getItem(KEY)) ?? {};
    } catch {
      return {};
    }
  }

  #write() {
    try {
      // A microphone that stays off for days is a riddle.
      const isKept = ([name]) => name !== "is_muted" && !KEPT_BY_SERVER.includes(name);
      const kept = Object.fromEntries(Object.entries(this.values).filter(isKept));
      localStorage.setItem(KEY, JSON.stringify(kept));
    } catch {
      // Without storage the choice lasts for this page.
    }
  }

  #take(control) {
    if (!(control.name in this.values)) return;
    if (control.type === "checkbox") this.values[control.name] = control.checked;
    else if (control.type === "range") this.values[control.name] = Number(control.value);
    else this.values[control.name] = control.value;
    this.#write();
    this.#label(control);
    this.onchange(control.name);
  }

  #fill() {
    for (const control of this.form.elements) {
      if (!(control.name in this.values)) continue;
      const value = this.values[control.name];
      if (control.type === "checkbox") control.checked = value;
      else if (control.type === "radio") control.checked = control.value === String(value ?? "");
      else control.value = value;
      this.#label(control);
    }
    // A voice that is gone, or a choice of an older version: back to what is always there.
    for (const name of ["voice_profile_id", "mode", "language", "quality"]) {
      if (!this.form.querySelector(`[name="${name}"]:checked`)) {
        const first = this.form.querySelector(`[name="${name}"]`);
        first.checked = true;
        this.values[name] = first.value;
      }
    }
  }

  #label(control) {
    const output = this.form.querySelector(`output[for="${control.id}"]`);
    if (!output) return;
    if (control.name === "pause_ms") output.value = say("seconds", { seconds: (control.value / 1000).toFixed(1) });
    else if (control.name === "speed") output.value = `${Number(control.value).toFixed(2)}×`;
    else output.value = `${Math.round(control.value * 100)}%`;
  }
}
