// Messages of the pages about voices: the notice with errors and their actions, and announcements for screen readers.
import { ApiError } from "./api.js";
import { byId } from "./dom.js";
import { Notice } from "./notice.js";
import { config } from "./page-config.js";
import { say } from "./ui-strings.js";

export const notice = new Notice({
  element: byId("notice"),
  title: byId("notice-title"),
  text: byId("notice-text"),
  actions: byId("notice-actions"),
});

/** Announce a change to screen readers. @param {string} text */
export function announce(text) {
  const announcer = document.getElementById("announcer");
  if (!announcer) return;
  const paragraph = document.createElement("p");
  paragraph.textContent = text;
  announcer.append(paragraph);
  while (announcer.children.length > 3) announcer.firstChild?.remove();
}

/**
 * Show an ApiError, with an action that calls `retry` where a retry can help. Rethrows any other error.
 *
 * @param {unknown} error
 * @param {() => unknown} [retry]
 */
export function showError(error, retry) {
  if (!(error instanceof ApiError)) throw error;
  /** @type {import("./notice.js").Action[]} */
  const actions = [];
  if (error.code === "expired") {
    const next = encodeURIComponent(window.location.pathname + window.location.search);
    actions.push({ label: "logIn", href: `${config.loginUrl}?next=${next}` });
  } else if (error.code === "gone") {
    actions.push({ label: "allVoices", href: config.listUrl });
  } else {
    if (retry) {
      const run = () => {
        notice.hide();
        retry();
      };
      actions.push({ label: "tryAgain", run });
    }
    actions.push({ label: "dismiss", run: () => notice.hide() });
  }
  const isKnown = ["offline", "unreachable", "expired", "gone"].includes(error.code);
  notice.show(isKnown ? error.code : "problem", { text: sayError(error), actions });
  notice.element.scrollIntoView({ block: "nearest" });
}

/** Return the sentence of an ApiError. Rethrows any other error. @param {unknown} error */
export function sayError(error) {
  if (!(error instanceof ApiError)) throw error;
  return error.message || say(`${error.code}_text`);
}
