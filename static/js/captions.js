// The captions: transcripts and replies as text. Knows nothing of audio or of the socket.
import { byId, closest, cloneTemplate, find, findAll } from "./dom.js";
import { listLatencies } from "./format.js";
import { retranslate } from "./retranslate.js";
import { say } from "./ui-strings.js";

const NEAR_THE_END_PX = 64;
/** @type {Readonly<Record<string, string>>} */
const HTML_LANGUAGES = { zh: "zh-Hant", en: "en" };

export class Captions {
  /** By id. @type {Map<string, HTMLElement>} */
  #turns = new Map();
  #isPinned = true;

  onreplay = (/** @type {string} */ _url, /** @type {HTMLElement} */ _button) => {};
  /** The person corrected the text of a turn. */
  oncorrect = (/** @type {string} */ _turnId, /** @type {string} */ _text) => {};

  /** @param {{ scroller: HTMLElement, list: HTMLElement, template: HTMLTemplateElement, announcer: HTMLElement }} elements */
  constructor({ scroller, list, template, announcer }) {
    this.scroller = scroller;
    this.list = list;
    this.template = template;
    this.announcer = announcer;
    scroller.addEventListener("scroll", () => {
      const rest = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
      this.#isPinned = rest < NEAR_THE_END_PX;
    });
    new ResizeObserver(() => this.#follow()).observe(scroller);
    list.addEventListener("click", (event) => {
      const button = closest(event, "[data-audio-url]");
      if (button?.dataset.audioUrl) this.onreplay(button.dataset.audioUrl, button);
      const turn = closest(event, ".turn");
      if (turn && closest(event, ".turn-edit")) this.#edit(turn);
    });
    this.adopt();
  }

  /** Take over the turns that the server wrote into the page. */
  adopt() {
    for (const element of findAll(this.list, "[data-turn-id]")) {
      this.#turns.set(element.dataset.turnId ?? "", element);
      const latency = find(element, ".turn-latency");
      latency.replaceChildren(...latencyItems(latency.dataset));
    }
    this.scrollToEnd();
  }

  /** Replace everything by the turns that the server has stored. @param {readonly Element[]} elements */
  replaceAll(elements) {
    this.list.replaceChildren(...elements);
    this.#turns.clear();
    this.adopt();
  }

  clear() {
    this.list.replaceChildren();
    this.#turns.clear();
  }

  /** Translate the turns after the page changed its language. `template` is translated already. */
  relabel() {
    for (const element of this.#turns.values()) {
      retranslate(element, cloneTemplate(this.template));
      find(element, ".turn-speaker").textContent = say(element.classList.contains("is-user") ? "you" : "avatar");
      const latency = find(element, ".turn-latency");
      if (latency.children.length > 0) latency.replaceChildren(...latencyItems(latency.dataset));
    }
  }

  get isEmpty() {
    return this.list.children.length === 0;
  }

  /** @param {{ turnId: string, text: string, isFinal: boolean, language?: string }} transcript */
  showTranscript({ turnId, text, isFinal, language }) {
    if (isFinal && text === "") {
      this.#remove(turnId);
      return;
    }
    const element = this.#findTurn(turnId, "user");
    this.#write(element, text, language);
    element.classList.toggle("is-partial", !isFinal);
    if (isFinal) this.announce(say("youSaid", { text }));
  }

  /** @param {{ turnId: string, text: string }} delta */
  showReplyDelta({ turnId, text }) {
    const element = this.#findTurn(turnId, "avatar");
    element.classList.add("is-partial");
    find(element, ".turn-text").textContent += text;
    this.#follow();
  }

  /** @param {{ turnId: string, text: string, wasInterrupted: boolean }} reply */
  showReply({ turnId, text, wasInterrupted }) {
    if (text === "") {
      this.#remove(turnId); // stopped before anything of it was heard
      return;
    }
    const element = this.#findTurn(turnId, "avatar");
    element.classList.remove("is-partial");
    this.#write(element, text);
    this.markInterrupted(turnId, wasInterrupted);
    this.announce(say("avatarSaid", { text }));
  }

  /**
   * Replace the text of the user's turn; later turns are no longer part of the conversation.
   *
   * @param {{ turnId: string, text: string, language?: string }} correction
   */
  showCorrection({ turnId, text, language }) {
    const element = this.#turns.get(turnId);
    if (!element) return;
    const heard = find(element, ".turn-heard");
    if (heard.hidden && text !== this.readText(turnId)) {
      find(heard, "s").textContent = this.readText(turnId);
      heard.hidden = false;
    }
    this.#write(element, text, language);
    for (let next = element.nextElementSibling; next; next = next.nextElementSibling)
      next.classList.add("is-superseded");
    this.announce(say("youSaid", { text }));
  }

  /** @param {string} turnId */
  readText(turnId) {
    return this.#turns.get(turnId)?.querySelector(".turn-text")?.textContent ?? "";
  }

  /** @param {HTMLElement} turn */
  #edit(turn) {
    if (turn.querySelector(".turn-correction")) return;
    const form = cloneTemplate(byId("correction-template", HTMLTemplateElement));
    const field = find(form, "textarea", HTMLTextAreaElement);
    const text = find(turn, ".turn-text");
    const close = () => {
      form.remove();
      text.hidden = false;
    };
    field.value = text.textContent ?? "";
    text.hidden = true;
    turn.append(form);
    field.focus();
    find(form, "[data-cancel]").addEventListener("click", close);
    form.addEventListener("keydown", (event) => {
      event.stopPropagation(); // Escape would stop the reply, the space bar would hold to talk
      if (event.key === "Escape") close();
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      close();
      const { turnId } = turn.dataset;
      if (turnId && field.value.trim()) this.oncorrect(turnId, field.value.trim());
    });
  }

  /** @param {string} turnId @param {boolean} wasInterrupted */
  markInterrupted(turnId, wasInterrupted) {
    const element = this.#turns.get(turnId);
    if (!element) return;
    element.classList.remove("is-partial");
    find(element, ".turn-interrupted").hidden = !wasInterrupted;
    this.#follow();
  }

  /** High quality was chosen, and the reply has the fast one. @param {string} turnId */
  showFallback(turnId) {
    find(this.#findTurn(turnId, "avatar"), ".turn-fallback").hidden = false;
    this.#follow();
  }

  /** Offer the recording of a turn. @param {string} turnId @param {string} url */
  showAudio(turnId, url) {
    const turn = this.#turns.get(turnId);
    if (!turn) return;
    const button = find(turn, ".turn-play");
    button.dataset.audioUrl = url;
    button.hidden = false;
    this.#follow();
  }

  /** @param {string} turnId @param {Readonly<Record<string, number | null>>} latency milliseconds by part of the turn */
  showLatency(turnId, latency) {
    const turn = this.#turns.get(turnId);
    if (!turn) return;
    const element = find(turn, ".turn-latency");
    for (const [stage, ms] of Object.entries(latency)) element.dataset[stage] = String(ms ?? "");
    element.replaceChildren(...latencyItems(latency));
    this.#follow();
  }

  /** Show partial text as it is, firmly: nothing will be added to it. */
  settle() {
    for (const element of this.list.querySelectorAll(".is-partial")) element.classList.remove("is-partial");
  }

  /** @param {string} text */
  announce(text) {
    const paragraph = document.createElement("p");
    paragraph.textContent = text;
    this.announcer.append(paragraph);
    while (this.announcer.children.length > 4) this.announcer.firstChild?.remove();
  }

  scrollToEnd() {
    this.#isPinned = true;
    this.#follow();
  }

  #follow() {
    if (this.#isPinned) this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  /** Return a turn, which is made if there is none. @param {string} turnId @param {"user" | "avatar"} speaker */
  #findTurn(turnId, speaker) {
    const known = this.#turns.get(turnId);
    if (known) return known;
    const element = cloneTemplate(this.template);
    element.dataset.turnId = turnId;
    element.classList.add(`is-${speaker}`);
    find(element, ".turn-speaker").textContent = say(speaker === "user" ? "you" : "avatar");
    this.list.append(element);
    this.#turns.set(turnId, element);
    return element;
  }

  /** @param {HTMLElement} element @param {string} text @param {string} [language] */
  #write(element, text, language) {
    const paragraph = find(element, ".turn-text");
    paragraph.textContent = text;
    if (language && language in HTML_LANGUAGES) paragraph.lang = HTML_LANGUAGES[language];
    this.#follow();
  }

  /** @param {string} turnId */
  #remove(turnId) {
    this.#turns.get(turnId)?.remove();
    this.#turns.delete(turnId);
  }
}

/** @param {Readonly<Record<string, number | null>> | DOMStringMap} latency */
function latencyItems(latency) {
  return listLatencies(latency).map(({ stage, seconds }) => {
    const item = document.createElement("span");
    item.textContent = say(`latency_${stage}`, { seconds });
    return item;
  });
}
