// The conversation as text: what was understood, what is answered. Knows nothing of sound or of the socket.
import { listLatencies } from "./format.js";
import { retranslate } from "./retranslate.js";
import { say } from "./ui-strings.js";

const NEAR_THE_END_PX = 64;
const HTML_LANGUAGES = { zh: "zh-Hant", en: "en" };

export class Captions {
  #turns = new Map();
  #isPinned = true;

  onreplay = () => {}; // (url, button)
  oncorrect = () => {}; // (turnId, text): the person says what they really said

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
    list.addEventListener("click", ({ target }) => {
      const button = target.closest("[data-audio-url]");
      if (button) this.onreplay(button.dataset.audioUrl, button);
      const edit = target.closest(".turn-edit");
      if (edit) this.#edit(edit.closest(".turn"));
    });
    this.adopt();
  }

  /** Take over the turns that the server has written into the page. */
  adopt() {
    for (const element of this.list.querySelectorAll("[data-turn-id]")) {
      this.#turns.set(element.dataset.turnId, element);
      const latency = element.querySelector(".turn-latency");
      latency.replaceChildren(...latencyItems(latency.dataset));
    }
    this.scrollToEnd();
  }

  /** Replace everything by what the server has kept. */
  replaceAll(elements) {
    this.list.replaceChildren(...elements);
    this.#turns.clear();
    this.adopt();
  }

  clear() {
    this.list.replaceChildren();
    this.#turns.clear();
  }

  /** The page has changed its language: name the speakers in it. `template` has been translated. */
  relabel() {
    for (const element of this.#turns.values()) {
      retranslate(element, this.template.content.firstElementChild);
      element.querySelector(".turn-speaker").textContent = say(element.classList.contains("is-user") ? "you" : "avatar");
      const latency = element.querySelector(".turn-latency");
      if (latency.children.length > 0) latency.replaceChildren(...latencyItems(latency.dataset));
    }
  }

  get isEmpty() {
    return this.list.children.length === 0;
  }

  showTranscript({ turnId, text, isFinal, language }) {
    if (isFinal && text === "") {
      this.#remove(turnId);
      return;
    }
    const element = this.#find(turnId, "user");
    this.#write(element, text, language);
    element.classList.toggle("is-partial", !isFinal);
    if (isFinal) this.announce(say("youSaid", { text }));
  }

  showReplyDelta({ turnId, text }) {
    const element = this.#find(turnId, "avatar");
    element.classList.add("is-partial");
    element.querySelector(".turn-text").textContent += text;
    this.#follow();
  }

  showReply({ turnId, text, wasInterrupted, language }) {
    if (text === "") {
      this.#remove(turnId); // stopped before anything of it was heard
      return;
    }
    const element = this.#find(turnId, "avatar");
    element.classList.remove("is-partial");
    this.#write(element, text, language);
    this.markInterrupted(turnId, wasInterrupted);
    this.announce(say("avatarSaid", { text }));
  }

  /** What was understood is corrected: it reads so from now on, and what followed is no part of the conversation. */
  showCorrection({ turnId, text, language }) {
    const element = this.#turns.get(turnId);
    if (!element) return;
    const heard = element.querySelector(".turn-heard");
    if (heard.hidden && text !== this.readText(turnId)) {
      heard.querySelector("s").textContent = this.readText(turnId);
      heard.hidden = false;
    }
    this.#write(element, text, language);
    for (let next = element.nextElementSibling; next; next = next.nextElementSibling) next.classList.add("is-superseded");
    this.announce(say("youSaid", { text }));
  }

  readText(turnId) {
    return this.#turns.get(turnId)?.querySelector(".turn-text").textContent ?? "";
  }

  #edit(turn) {
    if (turn.querySelector(".turn-correction")) return;
    const form = document.getElementById("correction-template").content.firstElementChild.cloneNode(true);
    const field = form.elements.namedItem("text");
    const text = turn.querySelector(".turn-text");
    const close = () => {
      form.remove();
      text.hidden = false;
    };
    field.value = text.textContent;
    text.hidden = true;
    turn.append(form);
    field.focus();
    form.querySelector("[data-cancel]").addEventListener("click", close);
    form.addEventListener("keydown", (event) => {
      event.stopPropagation(); // Escape would stop the reply, the space bar would hold to talk
      if (event.key === "Escape") close();
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      close();
      if (field.value.trim()) this.oncorrect(turn.dataset.turnId, field.value.trim());
    });
  }

  markInterrupted(turnId, wasInterrupted) {
    const element = this.#turns.get(turnId);
    if (!element) return;
    element.classList.remove("is-partial");
    element.querySelector(".turn-interrupted").hidden = !wasInterrupted;
    this.#follow();
  }

  /** High quality was wished for, and fast is what there is. */
  showFallback(turnId) {
    const note = this.#find(turnId, "avatar").querySelector(".turn-fallback");
    note.hidden = false;
    this.#follow();
  }

  showAudio(turnId, url) {
    const button = this.#turns.get(turnId)?.querySelector(".turn-play");
    if (!button) return;
    button.dataset.audioUrl = url;
    button.hidden = false;
    this.#follow();
  }

  showLatency(turnId, latency) {
    const element = this.#turns.get(turnId)?.querySelector(".turn-latency");
    if (!element) return;
    for (const [stage, ms] of Object.entries(latency ?? {})) element.dataset[stage] = ms ?? "";
    element.replaceChildren(...latencyItems(latency));
    this.#follow();
  }

  /** What began and will not go on: the line was lost. */
  settle() {
    for (const element of this.list.querySelectorAll(".is-partial")) element.classList.remove("is-partial");
  }

  announce(text) {
    const paragraph = document.createElement("p");
    paragraph.textContent = text;
    this.announcer.append(paragraph);
    while (this.announcer.children.length > 4) this.announcer.firstChild.remove();
  }

  scrollToEnd() {
    this.#isPinned = true;
    this.#follow();
  }

  #follow() {
    if (this.#isPinned) this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  #find(turnId, speaker) {
    const known = this.#turns.get(turnId);
    if (known) return known;
    const element = this.template.content.firstElementChild.cloneNode(true);
    element.dataset.turnId = turnId;
    element.classList.add(`is-${speaker}`);
    element.querySelector(".turn-speaker").textContent = say(speaker === "user" ? "you" : "avatar");
    this.list.append(element);
    this.#turns.set(turnId, element);
    return element;
  }

  #write(element, text, language) {
    const paragraph = element.querySelector(".turn-text");
    paragraph.textContent = text;
    if (HTML_LANGUAGES[language]) paragraph.lang = HTML_LANGUAGES[language];
    this.#follow();
  }

  #remove(turnId) {
    this.#turns.get(turnId)?.remove();
    this.#turns.delete(turnId);
  }
}

function latencyItems(latency) {
  return listLatencies(latency).map(({ stage, seconds }) => {
    const item = document.createElement("span");
    item.textContent = say(`latency_${stage}`, { seconds });
    return item;
  });
}
