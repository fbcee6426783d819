// What the page says, in the reader's language: the catalogue that the server put into the page.

const element = document.getElementById("words");
const catalogue = element ? JSON.parse(element.textContent) : {};

/** The sentence named `key`, with `{name}` replaced from `values`. */
export function say(key, values = {}) {
  const sentence = catalogue[key];
  if (sentence === undefined) throw new Error(`no words for ${key}`);
  return sentence.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}
