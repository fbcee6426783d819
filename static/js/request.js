// Asks the server's API. Knows the token that protects against forged requests, and how an error is worded.
import { say } from "./words.js";

export class ApiError extends Error {
  constructor(message, { status = 0, code = "" } = {}) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

function readToken() {
  return document.cookie.match(/(?:^|; )csrftoken=([^;]*)/)?.[1] ?? "";
}

/** The response of a request that succeeded. Throws ApiError with a sentence for the reader. */
export async function request(url, { method = "GET", body, signal } = {}) {
  const headers = { Accept: "application/json", "X-CSRFToken": readToken() };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(url, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(say("unreachable"));
  }
  if (response.ok) return response;
  throw new ApiError(await readSentence(response), { status: response.status });
}

export async function requestJson(url, options) {
  const response = await request(url, options);
  return response.status === 204 ? null : response.json();
}

/** The first sentence in an error, wherever the API has put it. */
async function readSentence(response) {
  try {
    const body = await response.json();
    const [first] = body.detail ? [body.detail] : Object.values(body).flat();
    if (typeof first === "string") return first;
  } catch {
    // Not JSON: a proxy's page, or none at all.
  }
  return say(response.status === 403 || response.status === 401 ? "expired_text" : "failed");
}
