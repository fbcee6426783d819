// The page of all voices: fetches them, puts them on cards, does what is pressed.
import { call } from "./api.js";
import { VoicePreview } from "./voice-preview.js";
import { config, profileAddress } from "./page-config.js";
import { announce, notice, showError } from "./page-notice.js";
import * as actions from "./voice-actions.js";
import { VoiceCard } from "./voice-card.js";
import { isBeingMade, sayStep } from "./voice-profile.js";
import { VoiceStatusPoller } from "./voice-status-poller.js";
import { say } from "./ui-strings.js";

const OWN_AT_ONCE = 24;
const STOCK_AT_ONCE = 100;

const element = (id) => document.getElementById(id);

class VoicesPage {
  preview = new VoicePreview();
  #statusPoller = new VoiceStatusPoller();
  #cards = new Map();
  #next = { own: null, shared: null };
  #spokenSteps = new Map();
  #chosen = null; // the voice that AVATAR answers in, which may be on no card yet

  constructor() {
    this.#statusPoller.onstatus = (id, status) => this.#takeStatus(id, status);
    this.#statusPoller.onsettled = (id) => this.#refresh(id);
    this.#statusPoller.onerror = (id, error) => {
      if (error.code === "gone") this.#drop(id);
      else if (error.code === "expired") showError(error);
    };
    element("use-automatic").addEventListener("click", () => this.#try(() => this.#chooseAutomatic()));
    for (const scope of ["own", "shared"]) {
      element(`${scope}-more`).addEventListener("click", () => this.#try(() => this.#fetchMore(scope)));
    }
    window.addEventListener("online", () => {
      if (notice.key === "offline" || notice.key === "unreachable") this.open();
    });
    this.open();
  }

  async open() {
    notice.hide();
    element("main").dataset.phase = "loading";
    element("loading").hidden = false;
    try {
      const [own, shared, stock, { voice_profile_id: chosenId }] = await Promise.all([
        call("GET", `${config.apiUrl}?scope=own&page_size=${OWN_AT_ONCE}`),
        call("GET", `${config.apiUrl}?scope=shared&page_size=${OWN_AT_ONCE}`),
        this.#fetchAll(`${config.apiUrl}?scope=stock&page_size=${STOCK_AT_ONCE}`),
        call("GET", config.defaultUrl),
      ]);
      for (const id of [...this.#cards.keys()]) this.#drop(id);
      this.#take("own", own);
      this.#take("shared", shared);
      for (const profile of stock) this.#add(element(profile.language === "zh" ? "stock-zh" : "stock-en"), profile);
      const isOnCard = [...this.#cards.values()].some(({ profile }) => profile.is_default);
      this.#chosen = chosenId && !isOnCard ? await this.#fetchChosen(chosenId) : null;
      element("voices").hidden = false;
      element("main").dataset.phase = "ready";
      this.#showCurrent();
      this.#showEmptiness();
    } catch (error) {
      element("main").dataset.phase = "failed";
      element("current").textContent = "";
      showError(error, () => this.open());
    } finally {
      element("loading").hidden = true;
    }
  }

  /** The chosen voice, or null: it may have gone, or be shared no more, since it was told. */
  async #fetchChosen(id) {
    try {
      return await call("GET", profileAddress(id));
    } catch (error) {
      if (error.code === "gone") return null;
      throw error;
    }
  }

  async #fetchAll(url) {
    const all = [];
    for (let next = url; next; ) {
      const answer = await call("GET", next);
      all.push(...answer.results);
      next = answer.next;
    }
    return all;
  }

  async #fetchMore(scope) {
    this.#take(scope, await call("GET", this.#next[scope]));
  }

  #take(scope, { results, next }) {
    this.#next[scope] = next;
    element(`${scope}-more`).hidden = !next;
    for (const profile of results) {
      if (!this.#cards.has(profile.id)) this.#add(element(scope), profile);
    }
  }

  #add(list, profile) {
    const card = new VoiceCard(element("card-template"), profile);
    card.onaction = (name, button) => this.#try(() => this.#act(card, name, button));
    this.#cards.set(profile.id, card);
    list.append(card.element);
    this.#statusPoller.follow(profile);
  }

  #drop(id) {
    this.#statusPoller.forget(id);
    this.#cards.get(id)?.element.remove();
    this.#cards.delete(id);
    this.#showEmptiness();
  }

  #showEmptiness() {
    element("own-empty").hidden = element("own").children.length > 0;
    element("shared-shelf").hidden = element("shared").children.length === 0;
  }

  #showCurrent() {
    const current = [...this.#cards.values()].find(({ profile }) => profile.is_default)?.profile ?? this.#chosen;
    const text = current ? say("currentVoice", { name: current.name }) : say("currentAutomatic");
    element("current").textContent = text;
    element("use-automatic").hidden = !current;
  }

  async #try(run) {
    try {
      notice.hide();
      await run();
    } catch (error) {
      showError(error, () => this.#try(run));
    }
  }

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

  async #remove(card) {
    const { profile } = card;
    if (!(await actions.remove(profile))) return;
    this.preview.stop();
    const neighbour = card.element.nextElementSibling ?? card.element.previousElementSibling;
    this.#drop(profile.id);
    if (profile.is_default) this.#showCurrent();
    (neighbour?.querySelector(".card-title") ?? element("main")).focus();
  }

  async #chooseAutomatic() {
    await actions.chooseAutomatic();
    this.#markDefault(null);
  }

  #markDefault(id) {
    this.#chosen = null;
    for (const card of this.#cards.values()) card.show({ ...card.profile, is_default: card.profile.id === id });
    this.#showCurrent();
  }

  #show(card, profile) {
    if (!profile) return;
    card.show({ ...card.profile, ...profile });
    this.#showCurrent();
  }

  async #refresh(id) {
    const card = this.#cards.get(id);
    if (!card) return;
    const before = card.profile;
    const profile = await call("GET", profileAddress(id));
    this.#show(card, profile);
    this.#statusPoller.follow(profile);
    if (isBeingMade(before) && profile.state === "ready") announce(say("isReady", { name: profile.name }));
    if (isBeingMade(before) && profile.state === "failed") announce(say("hasFailed", { name: profile.name }));
  }

  #takeStatus(id, status) {
    const card = this.#cards.get(id);
    if (!card) return;
    card.show({ ...card.profile, ...status });
    if (!isBeingMade(status) || this.#spokenSteps.get(id) === status.step) return;
    this.#spokenSteps.set(id, status.step);
    announce(say("isPreparing", { name: card.profile.name, step: sayStep(status.step) }));
  }
}

window.voices = new VoicesPage();
