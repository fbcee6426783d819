// When to connect again after the voice socket was closed. Pure.
import { CloseCode } from "./close-codes.js";

const FIRST_DELAY_MS = 500;
const MAX_DELAY_MS = 10_000;
const FULL_DELAY_MS = 8_000;

/** The server has no room now, and may have some in a moment. @type {readonly number[]} */
const NO_ROOM = [CloseCode.SERVER_FULL, CloseCode.OVERLOADED];

/** Whether only a person may connect again after this code. @param {number} code */
export function isFinal(code) {
  return !NO_ROOM.includes(code) && Object.values(CloseCode).some((each) => each === code);
}

/**
 * Return the delay before the next attempt: doubled with every attempt that failed, and spread over its second half, so
 * that browsers do not return at the same moment.
 *
 * @param {{ failures: number, code: number, random: number }} options `random` is between 0 and 1
 */
export function computeDelayMs({ failures, code, random }) {
  const backoffMs = Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** failures);
  const longestMs = NO_ROOM.includes(code) ? FULL_DELAY_MS : backoffMs;
  return Math.round(longestMs * (0.5 + random / 2));
}
