// The client of the server's API: JSON in, JSON out, errors with a code. Knows no page and no UI strings.

/**
 * `code` is the server's, with its sentence in the reader's language as `message`; or "offline", "unreachable",
 * "expired", "gone", "cancelled", for which there are UI strings.
 */
export class ApiError extends Error {
  /** @param {{ code: string, detail?: string, field?: string | null, status?: number }} problem */
  constructor({ code, detail = "", field = null, status = 0 }) {
    super(detail);
    this.code = code;
    this.field = field;
    this.status = status;
  }
}

/**
 * Call and return the parsed response, or null where there is none. Throws ApiError.
 *
 * @param {string} method
 * @param {string} url
 * @param {object} [body]
 * @returns {Promise<any>} as its caller declares it
 */
export async function call(method, url, body) {
  const response = await open(method, url, body);
  return parse(await response.text().catch(() => ""));
}

/**
 * Call and return the response unread, to be streamed. Throws ApiError; "cancelled" after `signal` was aborted.
 *
 * @param {string} method
 * @param {string} url
 * @param {object} [body]
 * @param {AbortSignal} [signal]
 */
export async function open(method, url, body, signal) {
  /** @type {Record<string, string>} */
  const headers = { Accept: "application/json", ...authorisation() };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(url, {
      method,
      headers,
      signal,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    throw isAbort(error) ? new ApiError({ code: "cancelled" }) : unreachable();
  }
  if (!response.ok) throw toError(response.status, parse(await response.text().catch(() => "")));
  return response;
}

/** Whether something was aborted by its signal, or by the person in the browser's own dialog. @param {unknown} error */
export function isAbort(error) {
  return error instanceof Error && error.name === "AbortError";
}

/**
 * Send a form, and report how many bytes have been sent: `onprogress(sent, total)`. Throws ApiError; "cancelled" after
 * `signal` was aborted.
 *
 * @param {string} url
 * @param {FormData} form
 * @param {{ onprogress: (sent: number, total: number) => void, signal: AbortSignal }} options
 * @returns {Promise<any>} as its caller declares it
 */
export function upload(url, form, { onprogress, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", url);
    request.setRequestHeader("Accept", "application/json");
    for (const [name, value] of Object.entries(authorisation())) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", ({ loaded, total }) => onprogress(loaded, total));
    request.addEventListener("load", () => {
      const answer = parse(request.responseText);
      if (request.status >= 200 && request.status < 300) resolve(answer);
      else reject(toError(request.status, answer));
    });
    request.addEventListener("error", () => reject(unreachable()));
    request.addEventListener("abort", () => reject(new ApiError({ code: "cancelled" })));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(form);
  });
}

/** Return the token against cross-site requests; "" before the server has set it. */
export function csrfToken() {
  return document.cookie.match(/(?:^|; )csrftoken=([^;]+)/)?.[1] ?? "";
}

/** @returns {Record<string, string>} */
function authorisation() {
  const token = csrfToken();
  return token ? { "X-CSRFToken": token } : {};
}

/** @param {string} text @returns {any} */
function parse(text) {
  if (text === "") return null;
  try {
    return JSON.parse(text);
  } catch {
    return null; // the error page of a proxy
  }
}

function unreachable() {
  return new ApiError({ code: navigator.onLine ? "unreachable" : "offline" });
}

/** @param {number} status @param {any} answer */
function toError(status, answer) {
  const isRefused = status === 401 || status === 403;
  if (answer?.code === "not_logged_in" || (isRefused && !answer?.code))
    return new ApiError({ code: "expired", status });
  if (status === 404) return new ApiError({ code: "gone", status });
  if (answer?.code && answer.detail) return new ApiError({ ...answer, status });
  return new ApiError({ code: "unreachable", status });
}
