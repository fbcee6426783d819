// The strings of the page in the reader's language, from the catalogue that the server wrote into it.

/** @typedef {Readonly<Record<string, string>>} Catalogue */

/** Read at the first use: a module that only formats can be imported without a document. @type {Catalogue | null} */
let catalogue = null;

/** Use `replacement` from now on: the page has changed its language. @param {Catalogue} replacement */
export function replaceCatalogue(replacement) {
  catalogue = replacement;
}

/**
 * Return the string named `key`, with `{name}` replaced from `values`. Throws where the catalogue has none.
 *
 * @param {string} key
 * @param {Readonly<Record<string, string | number>>} [values]
 * @returns {string}
 */
export function say(key, values = {}) {
  catalogue ??= readCatalogue();
  const sentence = catalogue[key];
  if (sentence === undefined) throw new Error(`no string for ${key}`);
  return sentence.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/** @returns {Catalogue} */
function readCatalogue() {
  return JSON.parse(document.getElementById("ui-strings")?.textContent ?? "{}");
}
