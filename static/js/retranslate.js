// Puts a page's texts into another language in place, from the same page as the server writes it in that language.

const ATTRIBUTES = ["aria-label", "title", "placeholder", "lang"];
// What scripts change: a copy of it would undo what the person did.
const OWN_DATA = new Set(["data-choice", "data-state", "data-phase", "data-own", "data-turn-id", "data-audio-url"]);

/** Copy texts and naming attributes from `wanted` to `shown`, element by element. What has no counterpart stays. */
export function retranslate(shown, wanted) {
  copyAttributes(shown, wanted);
  copyTexts(shown, wanted);
  const rest = [...wanted.children];
  for (const child of shown.children) {
    const index = rest.findIndex((candidate) => isCounterpart(child, candidate));
    if (index < 0) continue;
    retranslate(child, rest[index]);
    rest.splice(0, index + 1); // both are in document order
  }
  if (shown.tagName === "TEMPLATE") retranslate(shown.content, wanted.content);
}

function isCounterpart(one, other) {
  return one.tagName === other.tagName && one.id === other.id && one.classList[0] === other.classList[0] && value(one) === value(other);
}

/** What tells the options of a list apart. */
function value(element) {
  return element.tagName === "LABEL" ? element.querySelector("input")?.value : undefined;
}

function copyAttributes(shown, wanted) {
  for (const { name, value: text } of wanted.attributes ?? []) {
    const isText = ATTRIBUTES.includes(name) || (name.startsWith("data-") && !OWN_DATA.has(name));
    // A submit button's value is what it asks for: the other language, once this one is shown.
    if (isText || (name === "value" && wanted.tagName === "BUTTON")) shown.setAttribute(name, text);
  }
}

function copyTexts(shown, wanted) {
  const [before, after] = [shown, wanted].map((element) =>
    [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE && node.data.trim() !== ""),
  );
  // An empty place is filled by scripts: its text is not the template's to say.
  if (before.length !== after.length) return;
  before.forEach((node, index) => {
    node.data = after[index].data;
  });
}
