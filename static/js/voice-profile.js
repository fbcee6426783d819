// Texts and questions about a voice as the API describes it. Knows no addresses and no events.
import { find } from "./dom.js";
import { config } from "./page-config.js";
import { say } from "./ui-strings.js";

/** @import { VoiceProfile, VoiceStatus } from "./voice-types.js" */

export const STEPS = ["queued", "recognising", "embedding", "clip", "matching"];

/** @param {{ state: string }} profile */
export function isBeingMade({ state }) {
  return state === "pending" || state === "extracting";
}

/** @param {Pick<VoiceStatus, "fitting">} profile */
export function isBeingFitted({ fitting }) {
  return fitting?.state === "queued" || fitting?.state === "running";
}

/** Whether it can be heard now: also while it is being rebuilt. @param {VoiceProfile} profile */
export function canSpeak(profile) {
  return profile.state === "ready" || (isBeingMade(profile) && profile.version > 0);
}

/** Operators share what is ready; the owner of a shared voice may stop that at any time. @param {VoiceProfile} profile */
export function mayChangeSharing({ state, is_shared: isShared }) {
  return isShared || (config.mayShare && state === "ready");
}

/** @param {VoiceProfile} profile */
export function sayFacts({ language, gender, kind, is_own: isOwn, is_stock: isStock, is_shared: isShared }) {
  if (isStock) return say(gender); // its shelf says the language
  const facts = [say(language)];
  if (gender) facts.push(say(gender));
  facts.push(say(`kind_${kind}`));
  if (isOwn && isShared) facts.push(say("shared"));
  return facts.join(" · ");
}

/** @param {string} step */
export function sayStep(step) {
  return say(STEPS.includes(step) ? `step_${step}` : "state_extracting");
}

/** Fill in the parts of templates/voices/_similarity.html. @param {HTMLElement} element @param {VoiceProfile} profile */
export function showSimilarity(element, profile) {
  const value = profile.similarity;
  element.hidden = typeof value !== "number";
  if (typeof value !== "number") return;
  const isFitted = typeof profile.fitting?.similarity === "number"; // also while a closer version is searched for
  const text = say(isFitted ? "similarityFitted" : "similarity", { number: value.toFixed(2) });
  find(element, ".similarity-text").textContent = text;
  find(element, ".similarity-value").style.width = `${Math.max(0, Math.min(1, value)) * 100}%`;
}

/** @param {number} snrDb */
export function sayNoise(snrDb) {
  if (snrDb >= 25) return say("quietRoom");
  return say(snrDb >= 15 ? "someNoise" : "muchNoise");
}

/** Return the sentences for a recording's warnings, without those of unknown codes. @param {readonly string[]} codes */
export function sayWarnings(codes) {
  return codes.flatMap((code) => {
    try {
      return [say(`warning_${code}`)];
    } catch {
      return [];
    }
  });
}

/** @param {readonly string[]} sentences */
export function makeItems(sentences) {
  return sentences.map((sentence) => {
    const item = document.createElement("li");
    item.textContent = sentence;
    return item;
  });
}
