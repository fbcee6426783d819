// Whose voice it is: the declarations to choose from, and which was chosen, with the sum of the words that were shown.
import { call } from "./api.js";
import { config } from "./page-config.js";
import { say } from "./ui-strings.js";

export class ConsentChoice {
  /** What to send with a recording, or null as long as nothing is chosen. */
  declared = null;

  onchange = () => {};

  #texts = [];

  constructor(element) {
    this.element = element;
    element.addEventListener("change", ({ target }) => {
      const { attestation, text_sha256: sha256 } = this.#texts.find((each) => each.attestation === target.value);
      this.declared = { consent_attestation: attestation, consent_text_sha256: sha256 };
      this.onchange();
    });
  }

  /** Fetch the declarations and offer them. Raises ApiError. */
  async fetch() {
    if (this.#texts.length > 0) return;
    const texts = await call("GET", config.consentUrl);
    if (this.#texts.length > 0) return; // it was opened twice
    this.#texts = texts;
    const template = this.element.querySelector("template");
    const choices = this.#texts.map(({ attestation, text }) => {
      const choice = template.content.firstElementChild.cloneNode(true);
      choice.querySelector("input").value = attestation;
      choice.querySelector("b").textContent = say(`consentTitle_${attestation}`);
      choice.querySelector("small").textContent = text;
      return choice;
    });
    this.element.append(...choices);
  }

  /** Put what was declared into a form. */
  addTo(form) {
    for (const [name, value] of Object.entries(this.declared)) form.append(name, value);
  }

  /** Let it be declared anew: one declaration is of one recording. */
  clear() {
    this.declared = null;
    for (const input of this.element.querySelectorAll("input")) input.checked = false;
    this.onchange();
  }

  setBusy(isBusy) {
    this.element.disabled = isBusy;
  }
}
