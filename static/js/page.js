// What the pages about voices have in common: their facts, their notice, what is announced to a screen reader.
import { ApiError } from "./api.js";
import { Notice } from "./notice.js";
import { say } from "./words.js";

const element = (id) => document.getElementById(id);

/** Addresses and limits that the server put into the page. */
export const page = JSON.parse(element("page").textContent);

export const notice = new Notice({
  element: element("notice"),
  title: element("notice-title"),
  text: element("notice-text"),
  actions: element("notice-actions"),
});

export function detailAddress(id) {
  return page.detailUrl.replace(page.anyId, id);
}

export function profileAddress(id, rest = "") {
  return `${page.apiUrl}/${id}${rest}`;
}

/** Say to a screen reader what has changed. */
export function announce(text) {
  const announcer = element("announcer");
  if (!announcer) return;
  const paragraph = document.createElement("p");
  paragraph.textContent = text;
  announcer.append(paragraph);
  while (announcer.children.length > 3) announcer.firstChild.remove();
}

/** Show an ApiError, with `retry` as the way out where trying again can help. Any other error is ours: it goes on up. */
export function showError(error, retry) {
  if (!(error instanceof ApiError)) throw error;
  const actions = [];
  if (error.code === "expired") {
    const next = encodeURIComponent(window.location.pathname + window.location.search);
    actions.push({ label: "logIn", href: `${page.loginUrl}?next=${next}` });
  } else if (error.code === "gone") {
    actions.push({ label: "allVoices", href: page.listUrl });
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

/** The sentence of an ApiError. Any other error goes on up. */
export function sayError(error) {
  if (!(error instanceof ApiError)) throw error;
  return error.message || say(`${error.code}_text`);
}

export function sayPercent(share) {
  return say("percent", { percent: Math.round(share * 100) });
}

export function saySeconds(seconds) {
  return seconds < 10 ? seconds.toFixed(1) : String(Math.round(seconds));
}

export function saySize(bytes) {
  if (bytes < 1024) return `${bytes}\u00a0B`;
  if (bytes < 1024 * 1024) return `${Math.round(bytes / 1024)}\u00a0KB`;
  return `${(bytes / 1024 / 1024).toFixed(1)}\u00a0MB`;
}
