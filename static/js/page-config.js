// Addresses and limits that the server wrote into the pages about voices.
import { readJson } from "./dom.js";

/**
 * `voiceId` is that of the page of one voice; `anyId` stands in `detailUrl` for the id to fill in.
 *
 * @type {{
 *   apiUrl: string, defaultUrl: string, consentUrl: string, loginUrl: string, listUrl: string, newUrl: string,
 *   detailUrl: string, anyId: string, voiceId: string, mayShare: boolean,
 *   sentences: Record<string, string>, readAloud: Record<string, string>,
 *   shortestS: number, longestS: number, mostBytes: number,
 * }}
 */
export const config = readJson("page");

/** @param {string} id */
export function detailAddress(id) {
  return config.detailUrl.replace(config.anyId, id);
}

/** @param {string} id @param {string} [rest] */
export function profileAddress(id, rest = "") {
  return `${config.apiUrl}/${id}${rest}`;
}
