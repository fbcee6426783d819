// What the page says, in the reader's language: the catalogue that the server put into the page.

const element = document.getElementById("words");
let catalogue = element ? JSON.parse(element.textContent) : {};

/** From now on sentences come from `replacement`: the page has changed its language. */
export function replaceCatalogue(replacement) {
  catalogue = replacement;
}

/** The sentence named `key`, with `{name}` replaced from `values`. */
export function say(key, values = {}) {
  const sentence = catalogue[key];
  if (sentence === undefined) throw new Error(`no words for ${key}`);
  return sentence.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}
