// The choice of a consent: whose voice it is, with the hash of the text that was shown.
import { call } from "./api.js";
import { cloneTemplate, find, findAll } from "./dom.js";
import { config } from "./page-config.js";
import { say } from "./ui-strings.js";

export class ConsentChoice {
  /** What to send with a recording, or null while nothing is chosen. @type {Record<string, string> | null} */
  declared = null;

  onchange = () => {};

  /** @type {{ attestation: string, text: string, text_sha256: string }[]} */
  #texts = [];

  /** @param {HTMLFieldSetElement} element */
  constructor(element) {
    this.element = element;
    element.addEventListener("change", ({ target }) => {
      const chosen = this.#texts.find(
        (each) => target instanceof HTMLInputElement && each.attestation === target.value,
      );
      if (!chosen) return;
      const { attestation, text_sha256: sha256 } = chosen;
      this.declared = { consent_attestation: attestation, consent_text_sha256: sha256 };
      this.onchange();
    });
  }

  /** Fetch the declarations and offer them. Throws ApiError. */
  async fetch() {
    if (this.#texts.length > 0) return;
    const texts = await call("GET", config.consentUrl);
    if (this.#texts.length > 0) return; // it was opened twice
    this.#texts = texts;
    const template = find(this.element, "template", HTMLTemplateElement);
    const choices = this.#texts.map(({ attestation, text }) => {
      const choice = cloneTemplate(template);
      find(choice, "input", HTMLInputElement).value = attestation;
      find(choice, "b").textContent = say(`consentTitle_${attestation}`);
      find(choice, "small").textContent = text;
      return choice;
    });
    this.element.append(...choices);
  }

  /** Add the declaration to a form. @param {FormData} form */
  addTo(form) {
    for (const [name, value] of Object.entries(this.declared ?? {})) form.append(name, value);
  }

  /** Ask for another declaration: each is of one recording. */
  clear() {
    this.declared = null;
    for (const input of findAll(this.element, "input", HTMLInputElement)) input.checked = false;
    this.onchange();
  }

  /** @param {boolean} isBusy */
  setBusy(isBusy) {
    this.element.disabled = isBusy;
  }
}
