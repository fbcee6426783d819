// Switches the language without leaving the page, while a call is live that leaving would end.
import { find } from "./dom.js";
import { retranslate } from "./retranslate.js";
import { replaceCatalogue } from "./ui-strings.js";

/**
 * `mustStay()` says whether the page may not be left now; `onswitched()` is called when it has the other language.
 *
 * @param {{ selectors: readonly string[], mustStay: () => boolean, onswitched: () => void }} options
 */
export function joinLanguageSwitch({ selectors, mustStay, onswitched }) {
  const form = document.querySelector(".language-switch");
  if (!(form instanceof HTMLFormElement)) return;
  form.addEventListener("submit", async (event) => {
    if (!mustStay()) return;
    event.preventDefault();
    const body = new FormData(form, event.submitter);
    body.set("next", window.location.pathname); // the address now, not the one that the page was loaded from
    let page;
    try {
      const response = await fetch(form.action, { method: "POST", body });
      if (!response.ok) return;
      page = new DOMParser().parseFromString(await response.text(), "text/html");
    } catch {
      return; // offline: the page stays in the language that it has
    }
    document.documentElement.lang = page.documentElement.lang;
    for (const selector of selectors) {
      const [shown, wanted] = [document.querySelector(selector), page.querySelector(selector)];
      if (shown && wanted) retranslate(shown, wanted);
    }
    replaceCatalogue(JSON.parse(find(page, "#ui-strings").textContent ?? "{}"));
    onswitched();
  });
}
