// Maps a root mean square to the level that is shown: 0 (quieter than a quiet room) to 1 (loud speech). Pure.
const QUIET_DB = -54;
const LOUD_DB = -12;

/** @param {number} rms of samples between -1 and 1 */
export function toLevel(rms) {
  if (rms <= 0) return 0;
  return Math.max(0, Math.min(1, (20 * Math.log10(rms) - QUIET_DB) / (LOUD_DB - QUIET_DB)));
}
