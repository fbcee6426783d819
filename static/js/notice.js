// One card that says what went wrong and what can be done. Knows words, not causes.
import { say } from "./ui-strings.js";

export class Notice {
  key = null;

  constructor({ element, title, text, actions }) {
    Object.assign(this, { element, title, text, actions });
  }

  /** Show the words `<key>_title` and `<key>_text` (or `text`), with a button for each of `actions` {label, run, href}. */
  show(key, { actions = [], text = null, isSerious = true } = {}) {
    if (this.key === key && text === null) return;
    this.key = key;
    this.title.textContent = say(`${key}_title`);
    this.text.textContent = text ?? say(`${key}_text`);
    this.element.classList.toggle("is-serious", isSerious);
    this.actions.replaceChildren(...actions.map((action, index) => makeAction(action, index > 0)));
    this.element.hidden = false;
  }

  /** Take the card away: any, or only one of `keys`. */
  hide(...keys) {
    if (keys.length > 0 && !keys.includes(this.key)) return;
    this.key = null;
    this.element.hidden = true;
  }
}

function makeAction({ label, run, href }, isSecondary) {
  const element = document.createElement(href ? "a" : "button");
  element.className = isSecondary ? "button is-secondary" : "button";
  element.textContent = say(label);
  if (href) element.href = href;
  else {
    element.type = "button";
    element.addEventListener("click", run);
  }
  return element;
}
