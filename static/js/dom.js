// Typed look-ups in the document. Each throws, with the selector, where the page does not have what a script needs.

/**
 * Return the element with `id`, which must be a `kind`.
 *
 * @template {Element} [T=HTMLElement]
 * @param {string} id
 * @param {new () => T} [kind]
 * @returns {T}
 */
export function byId(id, kind) {
  return check(document.getElementById(id), `#${id}`, kind);
}

/**
 * Return the element with `id`, or null where the page has none.
 *
 * @template {Element} [T=HTMLElement]
 * @param {string} id
 * @param {new () => T} [kind]
 * @returns {T | null}
 */
export function byIdOrNull(id, kind) {
  const element = document.getElementById(id);
  return element && check(element, `#${id}`, kind);
}

/**
 * Return the first element in `root` that matches, which must be a `kind`.
 *
 * @template {Element} [T=HTMLElement]
 * @param {ParentNode} root
 * @param {string} selector
 * @param {new () => T} [kind]
 * @returns {T}
 */
export function find(root, selector, kind) {
  return check(root.querySelector(selector), selector, kind);
}

/**
 * Return all elements in `root` that match, each of which must be a `kind`.
 *
 * @template {Element} [T=HTMLElement]
 * @param {ParentNode} root
 * @param {string} selector
 * @param {new () => T} [kind]
 * @returns {T[]}
 */
export function findAll(root, selector, kind) {
  return [...root.querySelectorAll(selector)].map((element) => check(element, selector, kind));
}

/**
 * Return the nearest element around an event's target that matches, or null.
 *
 * @template {Element} [T=HTMLElement]
 * @param {Event} event
 * @param {string} selector
 * @param {new () => T} [kind]
 * @returns {T | null}
 */
export function closest({ target }, selector, kind) {
  const element = target instanceof Element ? target.closest(selector) : null;
  return element && check(element, selector, kind);
}

/**
 * Return a copy of what a template holds: its one element.
 *
 * @param {HTMLTemplateElement} template
 * @returns {HTMLElement}
 */
export function cloneTemplate(template) {
  const copy = template.content.firstElementChild?.cloneNode(true);
  if (!(copy instanceof HTMLElement)) throw new Error(`#${template.id} is empty`);
  return copy;
}

/**
 * Return the JSON that the server wrote into the page under `id`.
 *
 * @param {string} id
 * @returns {any} as its caller declares it
 */
export function readJson(id) {
  return JSON.parse(byId(id).textContent ?? "null");
}

/** Set the text, unless it is there already: a screen reader announces each change. @param {Element} target @param {string} text */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/**
 * @template {Element} T
 * @param {Element | null} element
 * @param {string} selector
 * @param {new () => T} [kind]
 * @returns {T}
 */
function check(element, selector, kind = /** @type {any} */ (HTMLElement)) {
  if (!(element instanceof kind)) throw new Error(`${selector}: ${element ? element.tagName : "nothing"} found`);
  return element;
}
