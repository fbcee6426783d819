// Draws the loudness of a recording and the position in it. Knows canvas and samples, not the player.
const BARS = 64;
const RATE_HZ = 8_000; // enough to see loudness

/** Return the loudness of `BARS` equal parts of an encoded recording, 0 to 1. @param {ArrayBuffer} encoded */
export async function measureLoudness(encoded) {
  const context = new OfflineAudioContext(1, 1, RATE_HZ);
  const samples = (await context.decodeAudioData(encoded)).getChannelData(0);
  const size = Math.max(1, Math.floor(samples.length / BARS));
  const levels = Array.from({ length: BARS }, (_, bar) => {
    let sum = 0;
    const part = samples.subarray(bar * size, (bar + 1) * size);
    for (const sample of part) sum += sample * sample;
    return Math.sqrt(sum / Math.max(1, part.length));
  });
  const loudest = Math.max(...levels, 1e-4);
  return levels.map((level) => level / loudest);
}

/** @param {HTMLCanvasElement} canvas @param {readonly number[]} levels @param {number} progress 0 to 1 */
export function drawWaveform(canvas, levels, progress) {
  const scale = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (width === 0) return;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const paint = canvas.getContext("2d");
  if (!paint) return;
  paint.scale(scale, scale);
  const style = getComputedStyle(canvas);
  const step = width / levels.length;
  levels.forEach((level, index) => {
    const bar = Math.max(3, level * (height - 8));
    const isPlayed = (index + 0.5) / levels.length <= progress;
    paint.fillStyle = isPlayed ? style.color : style.getPropertyValue("--line-strong");
    paint.globalAlpha = isPlayed ? 1 : 0.6;
    paint.beginPath();
    paint.roundRect(index * step + step * 0.2, (height - bar) / 2, step * 0.6, bar, step * 0.3);
    paint.fill();
  });
}

/** The levels of a recording that is not loaded. */
export const FLAT = Array.from({ length: BARS }, () => 0.12);
