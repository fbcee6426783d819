// The person's settings: stored in this browser, edited in the sheet. Knows the names of `configure`, not the socket.
// The voice and its quality are stored by the server: they are the person's, in every browser.
import { find } from "./dom.js";
import { say } from "./ui-strings.js";

/** @import { SettingsValues } from "./call-types.js" */

const KEY = "avatar.settings";
const KEPT_BY_SERVER = ["voice_profile_id", "quality"];

export class Settings {
  onchange = (/** @type {keyof SettingsValues} */ _name) => {};

  /** @param {HTMLDialogElement} dialog @param {SettingsValues} defaults */
  constructor(dialog, defaults) {
    this.dialog = dialog;
    this.form = find(dialog, "form", HTMLFormElement);
    this.values = { ...defaults };
    const values = asRecord(this.values);
    for (const [name, value] of Object.entries(this.#read())) {
      if (name in values && !KEPT_BY_SERVER.includes(name) && typeof value === typeof values[name])
        values[name] = value;
    }
    this.#fill();
    this.form.addEventListener("input", ({ target }) => {
      if (target instanceof HTMLInputElement) this.#handleInput(target);
    });
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      dialog.close();
    });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // the backdrop
    });
  }

  /** @param {string} [section] the one to scroll to */
  open(section) {
    this.dialog.showModal();
    const target = section && this.dialog.querySelector(`[data-section="${section}"]`);
    if (target) {
      target.scrollIntoView({ block: "start" });
      find(target, "input:checked, input, select").focus({ preventScroll: true });
    }
  }

  /** @param {keyof SettingsValues} name @param {string | number | boolean} value */
  set(name, value) {
    asRecord(this.values)[name] = value;
    this.#write();
    this.#fill();
    this.onchange(name);
  }

  /** Show the values in a form whose options have changed. */
  refill() {
    this.#fill();
  }

  /** @returns {Record<string, string | number | boolean>} */
  #read() {
    try {
      return JSON.parse(localStorage.getItem(KEY) ?? "{}") ?? {};
    } catch {
      return {};
    }
  }

  #write() {
    try {
      // Not stored: a microphone that is off on the next visit looks broken.
      const isKept = (/** @type {[string, unknown]} */ [name]) => name !== "is_muted" && !KEPT_BY_SERVER.includes(name);
      const kept = Object.fromEntries(Object.entries(this.values).filter(isKept));
      localStorage.setItem(KEY, JSON.stringify(kept));
    } catch {
      // Without storage the choice lasts for this page.
    }
  }

  /** @param {HTMLInputElement} control */
  #handleInput(control) {
    const values = asRecord(this.values);
    const { name, type } = control;
    if (!(name in values)) return;
    if (type === "checkbox") values[name] = control.checked;
    else if (type === "range") values[name] = Number(control.value);
    else values[name] = control.value;
    this.#write();
    this.#label(control);
    this.onchange(/** @type {keyof SettingsValues} */ (name));
  }

  #fill() {
    const values = asRecord(this.values);
    for (const control of this.form.elements) {
      if (!(control instanceof HTMLInputElement) || !(control.name in values)) continue;
      const value = values[control.name];
      if (control.type === "checkbox") control.checked = value === true;
      else if (control.type === "radio") control.checked = control.value === String(value ?? "");
      else control.value = String(value);
      this.#label(control);
    }
    // A deleted voice, or a value of an older version: back to the first option.
    for (const name of ["voice_profile_id", "mode", "language", "quality"]) {
      if (!this.form.querySelector(`[name="${name}"]:checked`)) {
        const first = find(this.form, `[name="${name}"]`, HTMLInputElement);
        first.checked = true;
        values[name] = first.value;
      }
    }
  }

  /** @param {HTMLInputElement} control */
  #label(control) {
    const output = this.form.querySelector(`output[for="${control.id}"]`);
    if (!(output instanceof HTMLOutputElement)) return;
    const number = Number(control.value);
    if (control.name === "pause_ms") output.value = say("seconds", { seconds: (number / 1000).toFixed(1) });
    else if (control.name === "speed") output.value = `${number.toFixed(2)}×`;
    else output.value = `${Math.round(number * 100)}%`;
  }
}

/** The same object, to be read and written by the name of a control. @param {SettingsValues} values */
function asRecord(values) {
  return /** @type {Record<string, string | number | boolean>} */ (/** @type {unknown} */ (values));
}
