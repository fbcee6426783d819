// The card that says what went wrong, with actions. Knows UI strings, not causes.
import { say } from "./ui-strings.js";

/** `label` names a UI string. @typedef {{ label: string, run: () => void, href?: undefined } | { label: string, href: string }} Action */

export class Notice {
  /** @type {string | null} */
  key = null;

  /** @param {{ element: HTMLElement, title: HTMLElement, text: HTMLElement, actions: HTMLElement }} elements */
  constructor({ element, title, text, actions }) {
    this.element = element;
    this.title = title;
    this.text = text;
    this.actions = actions;
  }

  /**
   * Show the UI strings `<key>_title` and `<key>_text` (or `text`), with a button or a link for each action.
   *
   * @param {string} key
   * @param {{ actions?: readonly Action[], text?: string | null, isSerious?: boolean }} [options]
   */
  show(key, { actions = [], text = null, isSerious = true } = {}) {
    if (this.key === key && text === null) return;
    this.key = key;
    this.title.textContent = say(`${key}_title`);
    this.text.textContent = text ?? say(`${key}_text`);
    this.element.classList.toggle("is-serious", isSerious);
    this.actions.replaceChildren(...actions.map((action, index) => makeAction(action, index > 0)));
    this.element.hidden = false;
  }

  /** Hide the card: any, or only one of `keys`. @param {string[]} keys */
  hide(...keys) {
    if (keys.length > 0 && !keys.includes(this.key ?? "")) return;
    this.key = null;
    this.element.hidden = true;
  }
}

/** @param {Action} action @param {boolean} isSecondary */
function makeAction(action, isSecondary) {
  const element = action.href === undefined ? makeButton(action.run) : makeLink(action.href);
  element.className = isSecondary ? "button is-secondary" : "button";
  element.textContent = say(action.label);
  return element;
}

/** @param {() => void} run */
function makeButton(run) {
  const button = document.createElement("button");
  button.type = "button";
  button.addEventListener("click", run);
  return button;
}

/** @param {string} href */
function makeLink(href) {
  const link = document.createElement("a");
  link.href = href;
  return link;
}
