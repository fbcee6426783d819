// The page of all voices: fetches them, shows them on cards, runs their actions.
import { ApiError, call } from "./api.js";
import { byId, find } from "./dom.js";
import { config, profileAddress } from "./page-config.js";
import { announce, notice, showError } from "./page-notice.js";
import { say } from "./ui-strings.js";
import * as actions from "./voice-actions.js";
import { VoiceCard } from "./voice-card.js";
import { VoicePreview } from "./voice-preview.js";
import { isBeingMade, sayStep } from "./voice-profile.js";
import { VoiceStatusPoller } from "./voice-status-poller.js";

const OWN_AT_ONCE = 24;
const STOCK_AT_ONCE = 100;

/** @import { VoicePage, VoiceProfile, VoiceStatus } from "./voice-types.js" */

/** @typedef {"own" | "shared"} Scope */

class VoicesPage {
  preview = new VoicePreview();
  #statusPoller = new VoiceStatusPoller();
  /** By the id of the voice. @type {Map<string, VoiceCard>} */
  #cards = new Map();
  /** The address of the next page. @type {Record<Scope, string | null>} */
  #next = { own: null, shared: null };
  /** The step that was announced last, by the id of the voice. @type {Map<string, string>} */
  #announcedSteps = new Map();
  /** The default voice, where it is on no card yet. @type {VoiceProfile | null} */
  #chosen = null;

  constructor() {
    this.#statusPoller.onstatus = (id, status) => this.#handleStatus(id, status);
    this.#statusPoller.onsettled = (id) => this.#refresh(id);
    this.#statusPoller.onerror = (id, error) => {
      if (error.code === "gone") this.#drop(id);
      else if (error.code === "expired") showError(error);
    };
    byId("use-automatic").addEventListener("click", () => this.#try(() => this.#chooseAutomatic()));
    for (const scope of /** @type {Scope[]} */ (["own", "shared"])) {
      byId(`${scope}-more`).addEventListener("click", () => this.#try(() => this.#fetchMore(scope)));
    }
    window.addEventListener("online", () => {
      if (notice.key === "offline" || notice.key === "unreachable") this.open();
    });
    this.open();
  }

  async open() {
    notice.hide();
    byId("main").dataset.phase = "loading";
    byId("loading").hidden = false;
    try {
      const [own, shared, stock, { voice_profile_id: chosenId }] = await Promise.all([
        call("GET", `${config.apiUrl}?scope=own&page_size=${OWN_AT_ONCE}`),
        call("GET", `${config.apiUrl}?scope=shared&page_size=${OWN_AT_ONCE}`),
        this.#fetchAll(`${config.apiUrl}?scope=stock&page_size=${STOCK_AT_ONCE}`),
        call("GET", config.defaultUrl),
      ]);
      for (const id of [...this.#cards.keys()]) this.#drop(id);
      this.#addPage("own", own);
      this.#addPage("shared", shared);
      for (const profile of stock) this.#add(byId(profile.language === "zh" ? "stock-zh" : "stock-en"), profile);
      const isOnCard = [...this.#cards.values()].some(({ profile }) => profile.is_default);
      this.#chosen = chosenId && !isOnCard ? await this.#fetchChosen(chosenId) : null;
      byId("voices").hidden = false;
      byId("main").dataset.phase = "ready";
      this.#showCurrent();
      this.#showEmptiness();
    } catch (error) {
      byId("main").dataset.phase = "failed";
      byId("current").textContent = "";
      showError(error, () => this.open());
    } finally {
      byId("loading").hidden = true;
    }
  }

  /** Return the default voice, or null when it was deleted or is not shared any more. @param {string} id @returns {Promise<VoiceProfile | null>} */
  async #fetchChosen(id) {
    try {
      return await call("GET", profileAddress(id));
    } catch (error) {
      if (error instanceof ApiError && error.code === "gone") return null;
      throw error;
    }
  }

  /** @param {string} url */
  async #fetchAll(url) {
    /** @type {VoiceProfile[]} */
    const all = [];
    /** @type {string | null} */
    let next = url;
    while (next) {
      /** @type {VoicePage} */
      const answer = await call("GET", next);
      all.push(...answer.results);
      next = answer.next;
    }
    return all;
  }

  /** @param {Scope} scope */
  async #fetchMore(scope) {
    const next = this.#next[scope];
    if (next) this.#addPage(scope, await call("GET", next));
  }

  /** @param {Scope} scope @param {VoicePage} page */
  #addPage(scope, { results, next }) {
    this.#next[scope] = next;
    byId(`${scope}-more`).hidden = !next;
    for (const profile of results) {
      if (!this.#cards.has(profile.id)) this.#add(byId(scope), profile);
    }
  }

  /** @param {HTMLElement} list @param {VoiceProfile} profile */
  #add(list, profile) {
    const card = new VoiceCard(byId("card-template", HTMLTemplateElement), profile);
    card.onaction = (name, button) => this.#try(() => this.#act(card, name, button));
    this.#cards.set(profile.id, card);
    list.append(card.element);
    this.#statusPoller.follow(profile);
  }

  /** @param {string} id */
  #drop(id) {
    this.#statusPoller.forget(id);
    this.#cards.get(id)?.element.remove();
    this.#cards.delete(id);
    this.#showEmptiness();
  }

  #showEmptiness() {
    byId("own-empty").hidden = byId("own").children.length > 0;
    byId("shared-shelf").hidden = byId("shared").children.length === 0;
  }

  #showCurrent() {
    const current = [...this.#cards.values()].find(({ profile }) => profile.is_default)?.profile ?? this.#chosen;
    const text = current ? say("currentVoice", { name: current.name }) : say("currentAutomatic");
    byId("current").textContent = text;
    byId("use-automatic").hidden = !current;
  }

  /** Run an action, and show what went wrong. @param {() => unknown} run */
  async #try(run) {
    try {
      notice.hide();
      await run();
    } catch (error) {
      showError(error, () => this.#try(run));
    }
  }

  /** @param {VoiceCard} card @param {string} name @param {HTMLElement} button */
  async #act(card, name, button) {
    const { profile } = card;
    switch (name) {
      case "listen":
        await this.preview.toggle(profile, button);
        break;
      case "use":
        if (profile.is_default) await this.#chooseAutomatic();
        else {
          await actions.choose(profile);
          this.#markDefault(profile.id);
        }
        break;
      case "rename":
        this.#show(card, await actions.rename(profile));
        break;
      case "share":
        this.#show(card, await actions.share(profile));
        break;
      case "delete":
        await this.#remove(card);
        break;
      case "fit":
        await actions.startFitting(profile);
        await this.#refresh(profile.id);
        break;
      case "cancel-fit":
        await actions.cancelFitting(profile);
        await this.#refresh(profile.id);
        break;
      case "retry":
        await actions.retry(profile);
        await this.#refresh(profile.id);
        break;
      default:
        throw new Error(`nothing does ${name}`);
    }
  }

  /** @param {VoiceCard} card */
  async #remove(card) {
    const { profile } = card;
    if (!(await actions.remove(profile))) return;
    this.preview.stop();
    const neighbour = card.element.nextElementSibling ?? card.element.previousElementSibling;
    this.#drop(profile.id);
    if (profile.is_default) this.#showCurrent();
    (neighbour ? find(neighbour, ".card-title") : byId("main")).focus();
  }

  async #chooseAutomatic() {
    await actions.chooseAutomatic();
    this.#markDefault(null);
  }

  /** @param {string | null} id */
  #markDefault(id) {
    this.#chosen = null;
    for (const card of this.#cards.values()) card.show({ ...card.profile, is_default: card.profile.id === id });
    this.#showCurrent();
  }

  /** @param {VoiceCard} card @param {Partial<VoiceProfile> | null} profile */
  #show(card, profile) {
    if (!profile) return;
    card.show({ ...card.profile, ...profile });
    this.#showCurrent();
  }

  /** @param {string} id */
  async #refresh(id) {
    const card = this.#cards.get(id);
    if (!card) return;
    const before = card.profile;
    /** @type {VoiceProfile} */
    const profile = await call("GET", profileAddress(id));
    this.#show(card, profile);
    this.#statusPoller.follow(profile);
    if (isBeingMade(before) && profile.state === "ready") announce(say("isReady", { name: profile.name }));
    if (isBeingMade(before) && profile.state === "failed") announce(say("hasFailed", { name: profile.name }));
  }

  /** @param {string} id @param {VoiceStatus} status */
  #handleStatus(id, status) {
    const card = this.#cards.get(id);
    if (!card) return;
    card.show({ ...card.profile, ...status });
    if (!isBeingMade(status) || this.#announcedSteps.get(id) === status.step) return;
    this.#announcedSteps.set(id, status.step);
    announce(say("isPreparing", { name: card.profile.name, step: sayStep(status.step) }));
  }
}

window.voices = new VoicesPage();
