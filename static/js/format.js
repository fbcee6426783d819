// Formats numbers for people: shares, seconds, bytes, positions in a recording. Pure.

/** @param {number} share 0 to 1 */
export function formatPercent(share) {
  return `${Math.round(share * 100)}%`; // the same in both languages
}

/** @param {number} seconds */
export function formatSeconds(seconds) {
  return seconds < 10 ? seconds.toFixed(1) : String(Math.round(seconds));
}

/** @param {number} bytes */
export function formatBytes(bytes) {
  if (bytes < 1024) return `${bytes}\u00a0B`;
  if (bytes < 1024 * 1024) return `${Math.round(bytes / 1024)}\u00a0KB`;
  return `${(bytes / 1024 / 1024).toFixed(1)}\u00a0MB`;
}

/** Format milliseconds as minutes and seconds, `1:05`. @param {number} ms */
export function formatClock(ms) {
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

/**
 * List the latencies of a turn that are known, in the order in which its parts happen.
 *
 * @param {Readonly<Record<string, number | string | null | undefined>> | DOMStringMap | null} latency milliseconds by part
 */
export function listLatencies(latency) {
  return ["stt", "ttft", "ttfa", "total"]
    .filter((stage) => (latency?.[stage] ?? "") !== "")
    .map((stage) => ({ stage, seconds: (Number(latency?.[stage]) / 1000).toFixed(2) }));
}
