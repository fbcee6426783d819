// A voice as the API tells of it, put into words. Knows no addresses and no events.
import { config } from "./page-config.js";
import { say } from "./ui-strings.js";

export const STEPS = ["queued", "recognising", "embedding", "clip", "matching"];

export function isBeingMade({ state }) {
  return state === "pending" || state === "extracting";
}

export function isBeingFitted({ fitting }) {
  return fitting?.state === "queued" || fitting?.state === "running";
}

/** Whether it can be heard now: also while it is being made anew. */
export function canSpeak(profile) {
  return profile.state === "ready" || (isBeingMade(profile) && profile.version > 0);
}

/** Operators share what is ready; whoever owns a shared voice may stop that at any time. */
export function mayChangeSharing({ state, is_shared: isShared }) {
  return isShared || (config.mayShare && state === "ready");
}

export function sayFacts({ language, gender, kind, is_own: isOwn, is_stock: isStock, is_shared: isShared }) {
  if (isStock) return say(gender); // its shelf says the language
  const facts = [say(language)];
  if (gender) facts.push(say(gender));
  facts.push(say(`kind_${kind}`));
  if (isOwn && isShared) facts.push(say("shared"));
  return facts.join(" · ");
}

export function sayStep(step) {
  return say(STEPS.includes(step) ? `step_${step}` : "state_extracting");
}

/** Fill in the parts of templates/voices/_similarity.html. */
export function showSimilarity(element, profile) {
  const value = profile.similarity;
  const hasValue = typeof value === "number";
  element.hidden = !hasValue;
  if (!hasValue) return;
  const isFitted = typeof profile.fitting?.similarity === "number"; // also while a still closer version is looked for
  const text = say(isFitted ? "similarityFitted" : "similarity", { number: value.toFixed(2) });
  element.querySelector(".similarity-text").textContent = text;
  element.querySelector(".similarity-value").style.width = `${Math.max(0, Math.min(1, value)) * 100}%`;
}

export function sayNoise(snrDb) {
  if (snrDb >= 25) return say("quietRoom");
  return say(snrDb >= 15 ? "someNoise" : "muchNoise");
}

/** The sentences for a recording's warnings; a code that this page does not know is passed over. */
export function sayWarnings(codes) {
  return codes.flatMap((code) => {
    try {
      return [say(`warning_${code}`)];
    } catch {
      return [];
    }
  });
}

export function makeItems(sentences) {
  return sentences.map((sentence) => {
    const item = document.createElement("li");
    item.textContent = sentence;
    return item;
  });
}
