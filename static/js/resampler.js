// Changes the sample rate of a stream of samples. Pure: imports no Web Audio; both worklets use it.

const ZERO_CROSSINGS = 24; // of the sinc, on each side: the transition band is about 1.6 kHz wide at 16 kHz
const KAISER_BETA = 8; // about 80 dB below the pass band
const CUTOFF = 0.92; // of the lower Nyquist frequency

/** @param {number} a @param {number} b @returns {number} */
function greatestCommonDivisor(a, b) {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

/** @param {number} x */
function besselI0(x) {
  let sum = 1;
  let term = 1;
  for (let k = 1; term > 1e-10 * sum; k += 1) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

/** A polyphase windowed-sinc resampler: low-pass filter and fractional delay in one set of taps per phase. */
export class Resampler {
  /** @param {number} inputRate @param {number} outputRate */
  constructor(inputRate, outputRate) {
    const divisor = greatestCommonDivisor(Math.round(inputRate), Math.round(outputRate));
    this.up = Math.round(outputRate) / divisor;
    this.down = Math.round(inputRate) / divisor;
    const cutoff = CUTOFF * Math.min(1, this.up / this.down);
    this.half = Math.ceil(ZERO_CROSSINGS / cutoff);
    this.filters = Array.from({ length: this.up }, (_, phase) => this.#makeFilter(phase / this.up, cutoff));
    this.buffer = new Float32Array(0);
    this.position = 0; // of the next output, in whole input samples of `buffer`
    this.phase = 0;
    this.reset();
  }

  /** @param {number} fraction @param {number} cutoff */
  #makeFilter(fraction, cutoff) {
    const taps = new Float32Array(2 * this.half);
    let sum = 0;
    for (let i = 0; i < taps.length; i += 1) {
      const distance = i - (this.half - 1) - fraction;
      const x = Math.PI * cutoff * distance;
      const sinc = x === 0 ? 1 : Math.sin(x) / x;
      const window = besselI0(KAISER_BETA * Math.sqrt(Math.max(0, 1 - (distance / this.half) ** 2)));
      taps[i] = sinc * window;
      sum += taps[i];
    }
    return taps.map((tap) => tap / sum);
  }

  reset() {
    this.buffer = new Float32Array(this.half - 1); // silence before the first sample, so that nothing is delayed
    this.position = this.half - 1;
    this.phase = 0;
  }

  /** Take samples at the input rate, return those that are complete at the output rate. @param {Float32Array<ArrayBuffer>} samples */
  process(samples) {
    if (this.up === this.down) return samples;
    const buffer = new Float32Array(this.buffer.length + samples.length);
    buffer.set(this.buffer);
    buffer.set(samples, this.buffer.length);
    const available = buffer.length - this.half - this.position;
    const output = new Float32Array(Math.max(0, Math.ceil((available * this.up - this.phase) / this.down)));
    let count = 0;
    while (this.position + this.half < buffer.length && count < output.length) {
      const taps = this.filters[this.phase];
      const start = this.position - this.half + 1;
      let sum = 0;
      for (let i = 0; i < taps.length; i += 1) sum += taps[i] * buffer[start + i];
      output[count] = sum;
      count += 1;
      this.phase += this.down;
      this.position += Math.floor(this.phase / this.up);
      this.phase %= this.up;
    }
    const consumed = Math.min(buffer.length, Math.max(0, this.position - this.half + 1));
    this.buffer = buffer.slice(consumed);
    this.position -= consumed;
    return count === output.length ? output : output.subarray(0, count);
  }

  /** Return what the filter still holds, and start over. */
  flush() {
    if (this.up === this.down) return new Float32Array(0);
    const tail = this.process(new Float32Array(this.half));
    this.reset();
    return tail;
  }
}
