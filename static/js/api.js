// Speaks with the server's API: JSON in, JSON out, errors with a code. Knows no page and no words.

/**
 * `code` is the server's, with its sentence in the reader's language as `message`; or "offline", "unreachable",
 * "expired", "gone", "cancelled", for which whoever shows it has words.
 */
export class ApiError extends Error {
  constructor({ code, detail = "", field = null, status = 0 }) {
    super(detail);
    Object.assign(this, { code, field, status });
  }
}

/** Call and return the parsed answer, or null where there is none. Raises ApiError. */
export async function call(method, url, body) {
  const response = await open(method, url, body);
  return parse(await response.text().catch(() => ""));
}

/** Call and return the answer unread, to be read as it comes. Raises ApiError; "cancelled" after `signal` was aborted. */
export async function open(method, url, body, signal) {
  const headers = { Accept: "application/json", ...authorisation() };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(url, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    throw error.name === "AbortError" ? new ApiError({ code: "cancelled" }) : unreachable();
  }
  if (!response.ok) throw toError(response.status, parse(await response.text().catch(() => "")));
  return response;
}

/**
 * Send a form, telling how many bytes have gone: `onprogress(sent, total)`. Raises ApiError; after `signal` was
 * aborted one of code "cancelled".
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

/** What proves that a request comes from a page of ours; "" before the server has given it. */
export function csrfToken() {
  return document.cookie.match(/(?:^|; )csrftoken=([^;]+)/)?.[1] ?? "";
}

function authorisation() {
  const token = csrfToken();
  return token ? { "X-CSRFToken": token } : {};
}

function parse(text) {
  if (text === "") return null;
  try {
    return JSON.parse(text);
  } catch {
    return null; // a page of a proxy
  }
}

function unreachable() {
  return new ApiError({ code: navigator.onLine ? "unreachable" : "offline" });
}

function toError(status, answer) {
  const isRefused = status === 401 || status === 403;
  if (answer?.code === "not_logged_in" || (isRefused && !answer?.code)) return new ApiError({ code: "expired", status });
  if (status === 404) return new ApiError({ code: "gone", status });
  if (answer?.code && answer.detail) return new ApiError({ ...answer, status });
  return new ApiError({ code: "unreachable", status });
}
