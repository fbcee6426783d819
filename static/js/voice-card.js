// One voice on a card: renders it and reports which of its buttons was pressed. Decides nothing.
import { cloneTemplate, closest, find, setText } from "./dom.js";
import { formatPercent } from "./format.js";
import { detailAddress, profileAddress } from "./page-config.js";
import { say } from "./ui-strings.js";
import {
  canSpeak,
  isBeingFitted,
  isBeingMade,
  mayChangeSharing,
  sayFacts,
  sayStep,
  showSimilarity,
} from "./voice-profile.js";

/** @import { VoiceProfile } from "./voice-types.js" */

export class VoiceCard {
  onaction = (/** @type {string} */ _name, /** @type {HTMLElement} */ _button) => {};

  /** @param {HTMLTemplateElement} template @param {VoiceProfile} profile */
  constructor(template, profile) {
    this.element = cloneTemplate(template);
    this.profile = profile;
    if (!profile.is_own) this.#find(".card-menu").remove();
    this.show(profile);
    this.element.addEventListener("click", (event) => {
      const button = closest(event, "[data-do]");
      if (!button?.dataset.do || button.dataset.do === "export") return;
      const menu = button.closest("details");
      if (menu) {
        menu.open = false;
        find(menu, "summary").focus(); // a dialog gives the focus back to it
      }
      this.onaction(button.dataset.do, button);
    });
  }

  /** @param {VoiceProfile} profile */
  show(profile) {
    this.profile = profile;
    const { element } = this;
    const { id, name, state, is_own: isOwn, is_default: isDefault } = profile;
    const isReady = state === "ready";
    element.dataset.voice = id;
    element.dataset.state = state;
    element.classList.toggle("is-chosen", isDefault);
    this.#text(".card-name", name);
    this.#find(".card-title", HTMLAnchorElement).href = detailAddress(id);
    this.#text(".card-facts", sayFacts(profile));

    const listen = this.#find(".listen", HTMLButtonElement);
    if (listen.getAttribute("aria-pressed") === "false") {
      listen.setAttribute("aria-label", say("listenTo", { name }));
      listen.title = say("listenTo", { name });
      listen.dataset.label = say("listenTo", { name });
    }
    listen.disabled = !canSpeak(profile);

    showSimilarity(this.#find(".similarity"), profile);
    if (!isReady) this.#find(".similarity").hidden = true;
    this.#showWork(profile);
    this.#showNote(profile);

    const use = this.#find('[data-do="use"]');
    use.hidden = !isReady;
    use.setAttribute("aria-pressed", String(isDefault));
    this.#text(".use-label", say(isDefault ? "inUse" : profile.is_stock ? "useShort" : "use"));
    use.setAttribute("aria-label", `${use.textContent?.trim()}: ${name}`);
    this.#find('[data-do="retry"]').hidden = !(isOwn && state === "failed");
    this.#find(".card-foot").hidden = !isReady && !(isOwn && state === "failed");

    if (isOwn) this.#showMenu(this.#find(".card-menu"), profile);
  }

  /** @param {HTMLElement} menu @param {VoiceProfile} profile */
  #showMenu(menu, profile) {
    const isReady = profile.state === "ready";
    const summary = find(menu, "summary");
    summary.setAttribute("aria-label", say("optionsOf", { name: profile.name }));
    summary.title = say("optionsOf", { name: profile.name });
    find(menu, '[data-do="fit"]').hidden = !isReady || profile.kind === "cloned" || isBeingFitted(profile);
    find(menu, '[data-do="share"]').hidden = !mayChangeSharing(profile);
    find(menu, ".share-label").textContent = say(profile.is_shared ? "unshare" : "share");
    const link = find(menu, '[data-do="export"]', HTMLAnchorElement);
    link.href = profileAddress(profile.id, "/export");
    link.hidden = isBeingMade(profile);
  }

  /** @param {VoiceProfile} profile */
  #showWork(profile) {
    const isMade = isBeingMade(profile);
    const isFitted = !isMade && isBeingFitted(profile);
    this.#find(".card-work").hidden = !isMade && !isFitted;
    this.#find('[data-do="cancel-fit"]').hidden = !isFitted;
    if (!isMade && !isFitted) return;
    const bar = this.#find(".bar", HTMLProgressElement);
    const isWaiting = isMade ? profile.state === "pending" : profile.fitting?.state === "queued";
    const progress = isMade ? profile.progress : profile.fitting?.progress;
    const text = isMade ? this.#sayStep(profile) : say(isWaiting ? "fitQueued" : "fitRunning");
    const shown = isWaiting || typeof progress !== "number" ? text : `${text} · ${formatPercent(progress)}`;
    this.#text(".card-work-text", shown);
    bar.setAttribute("aria-label", text);
    if (isWaiting) bar.removeAttribute("value");
    else bar.value = progress ?? 0;
  }

  /** @param {VoiceProfile} profile */
  #sayStep({ state, step }) {
    return state === "pending" ? say("state_pending") : sayStep(step);
  }

  /** @param {VoiceProfile} profile */
  #showNote({ state, error }) {
    const note = this.#find(".card-note");
    note.hidden = !["failed", "disabled", "deleting"].includes(state);
    if (state === "failed") note.textContent = error?.detail ?? say("failedUnknown");
    if (state === "disabled" || state === "deleting") note.textContent = say(`state_${state}`);
  }

  /**
   * @template {HTMLElement} [T=HTMLElement]
   * @param {string} selector
   * @param {new () => T} [kind]
   */
  #find(selector, kind) {
    return find(this.element, selector, kind);
  }

  /** @param {string} selector @param {string} text */
  #text(selector, text) {
    setText(this.#find(selector), text);
  }
}
