// The person's own voices in the sheet of the call: what has become of them since the page came, and the choice kept.
import { call } from "./api.js";

const API = "/api/voice-profiles";
const DEFAULT_API = "/api/voice-default";
const EVERY_MS = 2_000;

export class VoiceSheet {
  #timer = 0;

  onchange = () => {}; // the list has changed: what is chosen is to be marked again
  onerror = () => {}; // a choice could not be kept

  /** `list` holds the words for states in its data attributes, `template` one voice. */
  constructor({ dialog, list, template }) {
    Object.assign(this, { dialog, list, template });
  }

  /** Bring the list up to date, and keep it so while the sheet is open and a voice is being made. */
  async refresh() {
    clearTimeout(this.#timer);
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

  /** Offer a voice no more that the server does not have. */
  drop(id) {
    this.list.querySelector(`input[value="${id}"]`)?.closest("label").remove();
    this.onchange();
  }

  async remember(name, value) {
    try {
      if (name === "quality") await call("PATCH", DEFAULT_API, { quality: value });
      else if (value) await call("POST", `${API}/${value}/default`);
      else await call("DELETE", DEFAULT_API);
    } catch {
      this.onerror(this.list.dataset.notRemembered);
    }
  }

  #show(profiles) {
    const known = new Map([...this.list.querySelectorAll("[data-own]")].map((option) => [option.dataset.own, option]));
    let last = this.list.firstElementChild; // automatic comes first
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

  #make(id) {
    const option = this.template.content.firstElementChild.cloneNode(true);
    option.dataset.own = id;
    option.querySelector("input").value = id;
    return option;
  }

  #fill(option, { name, language, state, similarity, version }) {
    const { dataset } = this.list;
    const canSpeak = state === "ready" || ((state === "pending" || state === "extracting") && version > 0);
    option.querySelector("input").disabled = !canSpeak;
    option.querySelector("b").textContent = name;
    const facts = [dataset[language] ?? language];
    if (state !== "ready") facts.push(dataset[state] ?? "");
    else if (typeof similarity === "number") facts.push(`${dataset.similarity} ${similarity.toFixed(2)}`);
    option.querySelector("small").textContent = facts.join(" · ");
  }
}
