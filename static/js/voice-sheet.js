// The voices in the sheet of the call: refreshes the person's own, and stores the choice on the server.
import { call } from "./api.js";
import { cloneTemplate, find, findAll } from "./dom.js";

/** @import { VoiceProfile } from "./voice-types.js" */

const API = "/api/voice-profiles";
const DEFAULT_API = "/api/voice-default";
const EVERY_MS = 2_000;

export class VoiceSheet {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** The list has changed: the chosen voice is to be marked again. */
  onchange = () => {};
  /** A choice could not be stored. */
  onerror = (/** @type {string} */ _text) => {};

  /**
   * `list` has the names of states in its data attributes; `template` is one voice.
   *
   * @param {{ dialog: HTMLDialogElement, list: HTMLElement, template: HTMLTemplateElement }} elements
   */
  constructor({ dialog, list, template }) {
    this.dialog = dialog;
    this.list = list;
    this.template = template;
  }

  /** Bring the list up to date, and poll while the sheet is open and a voice is being built. */
  async refresh() {
    clearTimeout(this.#timer);
    /** @type {VoiceProfile[]} */
    let profiles;
    try {
      ({ results: profiles } = await call("GET", `${API}?scope=own&page_size=50`));
    } catch {
      return; // those that came with the page can still be chosen
    }
    this.#show(profiles);
    const isBusy = profiles.some(({ state }) => state === "pending" || state === "extracting");
    if (isBusy && this.dialog.open) this.#timer = setTimeout(() => this.refresh(), EVERY_MS);
  }

  /** Remove a voice that the server does not have any more. @param {string} id */
  drop(id) {
    this.list.querySelector(`input[value="${id}"]`)?.closest("label")?.remove();
    this.onchange();
  }

  /** @param {"voice_profile_id" | "quality"} name @param {string} value */
  async remember(name, value) {
    try {
      if (name === "quality") await call("PATCH", DEFAULT_API, { quality: value });
      else if (value) await call("POST", `${API}/${value}/default`);
      else await call("DELETE", DEFAULT_API);
    } catch {
      this.onerror(this.list.dataset.notRemembered ?? "");
    }
  }

  /** @param {VoiceProfile[]} profiles */
  #show(profiles) {
    const known = new Map(findAll(this.list, "[data-own]").map((option) => [option.dataset.own, option]));
    let last = find(this.list, "label"); // automatic comes first
    for (const profile of profiles) {
      const option = known.get(profile.id) ?? this.#make(profile.id);
      known.delete(profile.id);
      this.#fill(option, profile);
      if (last.nextElementSibling !== option) last.after(option);
      last = option;
    }
    for (const option of known.values()) option.remove();
    this.onchange();
  }

  /** @param {string} id */
  #make(id) {
    const option = cloneTemplate(this.template);
    option.dataset.own = id;
    find(option, "input", HTMLInputElement).value = id;
    return option;
  }

  /** @param {HTMLElement} option @param {VoiceProfile} profile */
  #fill(option, { name, language, state, similarity, version }) {
    const { dataset } = this.list;
    const canSpeak = state === "ready" || ((state === "pending" || state === "extracting") && version > 0);
    find(option, "input", HTMLInputElement).disabled = !canSpeak;
    find(option, "b").textContent = name;
    const facts = [dataset[language] ?? language];
    if (state !== "ready") facts.push(dataset[state] ?? "");
    else if (typeof similarity === "number") facts.push(`${dataset.similarity} ${similarity.toFixed(2)}`);
    find(option, "small").textContent = facts.join(" · ");
  }
}
