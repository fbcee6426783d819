// Uploads a form, shows how many bytes have been sent, and lets the person cancel.
import { upload } from "./api.js";
import { byId } from "./dom.js";
import { formatBytes, formatPercent } from "./format.js";
import { say } from "./ui-strings.js";

/**
 * Return the server's response. Throws ApiError, with code "cancelled" if the person cancelled.
 *
 * @param {string} url
 * @param {FormData} form
 * @returns {Promise<any>} as its caller declares it
 */
export async function uploadWithProgress(url, form) {
  const controller = new AbortController();
  const stop = () => controller.abort();
  const cancel = byId("cancel-sending");
  cancel.addEventListener("click", stop);
  cancel.hidden = false;
  byId("sending").hidden = false;
  show(0, 0);
  try {
    return await upload(url, form, { signal: controller.signal, onprogress: show });
  } finally {
    byId("sending").hidden = true;
    cancel.removeEventListener("click", stop);
  }
}

/** @param {number} sent bytes @param {number} total bytes; 0 before they are known */
function show(sent, total) {
  const bar = byId("sending-bar", HTMLProgressElement);
  const isComplete = total > 0 && sent >= total;
  if (isComplete) bar.removeAttribute("value");
  else bar.value = total > 0 ? sent / total : 0;
  const text = total > 0 ? say("uploading", { sent: formatBytes(sent), total: formatBytes(total) }) : "";
  byId("sending-text").textContent = isComplete
    ? say("uploaded")
    : total > 0
      ? `${text} · ${formatPercent(sent / total)}`
      : say("uploading", { sent: formatBytes(0), total: "…" });
}
