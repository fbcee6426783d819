// The HTTP requests of the call page: the status of the engines and the turns that are stored. Also its addresses.
import { findAll } from "./dom.js";

/** @import { InferenceStatus } from "./call-types.js" */

/**
 * What the server wrote into the page; `anyId` and `anyTurnId` stand in its addresses for those to be filled in.
 *
 * @typedef {{
 *   conversationId: string | null, socketUrl: string, statusUrl: string, loginUrl: string, newUrl: string,
 *   conversationUrl: string, audioUrl: string, anyId: string, anyTurnId: string,
 *   pauseMs: number, sensitivity: number, voiceProfileId: string | null, quality: "fast" | "high_quality" | null,
 * }} CallConfig
 */

/** @param {CallConfig} config @param {string} conversationId */
export function makeConversationAddress({ conversationUrl, anyId }, conversationId) {
  return conversationUrl.replace(anyId, conversationId);
}

/** @param {CallConfig} config @param {string} conversationId @param {string} turnId */
export function makeAudioAddress({ audioUrl, anyId, anyTurnId }, conversationId, turnId) {
  return audioUrl.replace(anyId, conversationId).replace(anyTurnId, turnId);
}

/**
 * Ask how the engines are. Null when there is no answer: the socket notices and says when the server is away.
 *
 * @param {string} url
 * @returns {Promise<InferenceStatus | null>}
 */
export async function fetchStatus(url) {
  try {
    const response = await fetch(url, { headers: { Accept: "application/json" } });
    return response.ok ? (await response.json()).inference : null;
  } catch {
    return null;
  }
}

/**
 * Fetch the turns of a conversation as the server has stored them. Empty when it cannot be reached: the connection
 * dropped again, and the next one asks again.
 *
 * @param {string} url
 * @returns {Promise<HTMLElement[]>}
 */
export async function fetchKeptTurns(url) {
  try {
    const response = await fetch(url);
    if (!response.ok) return [];
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    return findAll(page, "#turns > .turn").map((turn) => document.adoptNode(turn));
  } catch {
    return [];
  }
}
