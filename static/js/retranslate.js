// Translates a page in place, from the same page as the server renders it in the other language.

const ATTRIBUTES = ["aria-label", "title", "placeholder", "lang"];
// Written by scripts: a copy would undo what the person did.
const OWN_DATA = new Set(["data-choice", "data-state", "data-phase", "data-own", "data-turn-id", "data-audio-url"]);

/**
 * Copy texts and naming attributes from `wanted` to `shown`, element by element. What has no counterpart stays.
 *
 * @param {Element | DocumentFragment} shown
 * @param {Element | DocumentFragment} wanted
 */
export function retranslate(shown, wanted) {
  if (shown instanceof Element && wanted instanceof Element) copyAttributes(shown, wanted);
  copyTexts(shown, wanted);
  const rest = [...wanted.children];
  for (const child of shown.children) {
    const index = rest.findIndex((candidate) => isCounterpart(child, candidate));
    if (index < 0) continue;
    retranslate(child, rest[index]);
    rest.splice(0, index + 1); // both are in document order
  }
  if (shown instanceof HTMLTemplateElement && wanted instanceof HTMLTemplateElement)
    retranslate(shown.content, wanted.content);
}

/** @param {Element} one @param {Element} other */
function isCounterpart(one, other) {
  return (
    one.tagName === other.tagName &&
    one.id === other.id &&
    one.classList[0] === other.classList[0] &&
    value(one) === value(other)
  );
}

/** Return what tells the options of a list apart. @param {Element} element */
function value(element) {
  return element.tagName === "LABEL" ? element.querySelector("input")?.value : undefined;
}

/** @param {Element} shown @param {Element} wanted */
function copyAttributes(shown, wanted) {
  for (const { name, value: text } of wanted.attributes) {
    const isText = ATTRIBUTES.includes(name) || (name.startsWith("data-") && !OWN_DATA.has(name));
    // A submit button's value is what it asks for: the other language, once this one is shown.
    if (isText || (name === "value" && wanted.tagName === "BUTTON")) shown.setAttribute(name, text);
  }
}

/** @param {Element | DocumentFragment} shown @param {Element | DocumentFragment} wanted */
function copyTexts(shown, wanted) {
  const [before, after] = [shown, wanted].map((element) =>
    [...element.childNodes].filter((node) => node instanceof Text).filter((node) => node.data.trim() !== ""),
  );
  // An empty element is filled by scripts.
  if (before.length !== after.length) return;
  before.forEach((node, index) => {
    node.data = after[index].data;
  });
}
