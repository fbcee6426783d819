// Runs in the audio thread: chunks of replies (PCM16) in, samples out. Counts what was played by turn.
import { Resampler } from "./resampler.js";

/**
 * @import { FromPlayer, ToPlayer } from "./player-messages.js"
 * @typedef {{ turnId: string | null, samples: Float32Array<ArrayBuffer> } | { turnId: string, samples: null }} Queued
 *   without samples: the end of that reply
 */

const RAMP_S = 0.006; // long enough to hide a step, short enough to be heard as "at once"
const START_BUFFER_S = 0.04; // what must be there before a reply starts…
const LONGEST_BUFFER_S = 0.24; // …and, doubled with every gap in the same reply, at most
const REPORT_S = 0.05;
const TAP_FRAMES = 2048;

class PlayerProcessor extends AudioWorkletProcessor {
  constructor() {
    super();
    this.rampStep = 1 / (RAMP_S * sampleRate);
    /** @type {Float32Array | null} */
    this.tapBuffer = null;
    this.tapFilled = 0;
    this.resampler = new Resampler(sampleRate, sampleRate);
    /** @type {string | null} */
    this.incoming = null;
    this.gain = 0;
    this.last = 0;
    this.sinceReport = 0;
    this.energy = 0;
    this.isClosed = false;
    /** @type {Queued[]} */
    this.queue = [];
    this.offset = 0;
    this.queuedFrames = 0;
    this.ends = 0;
    this.isPlaying = false;
    /** @type {string | null} */
    this.turnId = null;
    this.playedFrames = 0;
    this.startBuffer = START_BUFFER_S;
    this.port.onmessage = ({ data }) => this.#receive(data);
  }

  /** Drop what is queued. What was being played fades by the ramp in `process`. */
  #clear() {
    this.queue = [];
    this.offset = 0;
    this.queuedFrames = 0;
    this.ends = 0;
    this.isPlaying = false;
    this.turnId = null;
    this.playedFrames = 0;
    this.startBuffer = START_BUFFER_S;
  }

  /** @param {ToPlayer} message */
  #receive(message) {
    if (message.type === "begin") {
      this.resampler = new Resampler(message.sampleRate, sampleRate);
      this.incoming = message.turnId;
    } else if (message.type === "push") {
      const pcm = new Int16Array(message.pcm);
      const samples = new Float32Array(pcm.length);
      for (let i = 0; i < pcm.length; i += 1) samples[i] = pcm[i] / 32_768;
      this.#enqueue(this.resampler.process(samples));
    } else if (message.type === "end") {
      this.#enqueue(this.resampler.flush());
      this.queue.push({ turnId: message.turnId, samples: null });
      this.ends += 1;
    } else if (message.type === "flush") {
      this.#post({ type: "flushed", turnId: this.turnId, playedMs: this.#playedMs() });
      this.#sendTap();
      this.#clear();
    } else if (message.type === "tap") {
      this.tapBuffer = message.isOn ? new Float32Array(TAP_FRAMES) : null;
      this.tapFilled = 0;
    } else if (message.type === "close") {
      this.isClosed = true;
    }
  }

  /** @param {FromPlayer} message */
  #post(message) {
    this.port.postMessage(message);
  }

  /** @param {Float32Array<ArrayBuffer>} samples */
  #enqueue(samples) {
    if (samples.length === 0) return;
    this.queue.push({ turnId: this.incoming, samples });
    this.queuedFrames += samples.length;
  }

  #playedMs() {
    return Math.round((this.playedFrames / sampleRate) * 1000);
  }

  /** Return the next sample of the queue, or null when there is none now. */
  #next() {
    while (this.queue.length > 0) {
      const head = this.queue[0];
      if (head.samples === null) {
        this.queue.shift();
        this.ends -= 1;
        this.#post({ type: "finished", turnId: head.turnId, playedMs: this.#playedMs() });
        this.#sendTap();
        this.turnId = null;
        this.playedFrames = 0;
        this.startBuffer = START_BUFFER_S;
        return null;
      }
      if (this.offset < head.samples.length) {
        if (head.turnId !== this.turnId) {
          this.turnId = head.turnId;
          this.playedFrames = 0;
        }
        const sample = head.samples[this.offset];
        this.offset += 1;
        this.queuedFrames -= 1;
        this.playedFrames += 1;
        return sample;
      }
      this.queue.shift();
      this.offset = 0;
    }
    return null;
  }

  #mayStart() {
    return this.queue.length > 0 && (this.ends > 0 || this.queuedFrames >= this.startBuffer * sampleRate);
  }

  /** @param {Float32Array[][]} _inputs @param {Float32Array[][]} outputs */
  process(_inputs, outputs) {
    if (this.isClosed) return false;
    const output = outputs[0][0];
    for (let i = 0; i < output.length; i += 1) {
      if (!this.isPlaying && this.#mayStart()) this.isPlaying = true;
      const sample = this.isPlaying ? this.#next() : null;
      if (sample === null) {
        // Nothing to play: fade the last value instead of dropping it, then wait for a longer buffer than before.
        if (this.isPlaying && this.turnId !== null) this.startBuffer = Math.min(LONGEST_BUFFER_S, this.startBuffer * 2);
        this.isPlaying = false;
        this.gain = Math.max(0, this.gain - this.rampStep);
      } else {
        this.last = sample;
        this.gain = Math.min(1, this.gain + this.rampStep);
      }
      output[i] = this.last * this.gain;
      this.energy += output[i] * output[i];
      if (this.tapBuffer && (this.isPlaying || this.gain > 0)) this.#tap(output[i]);
    }
    this.#report(output.length);
    return true;
  }

  /** @param {number} frames */
  #report(frames) {
    this.sinceReport += frames;
    if (this.sinceReport < REPORT_S * sampleRate) return;
    const rms = Math.sqrt(this.energy / this.sinceReport);
    if (this.turnId !== null || rms > 0) {
      const queuedMs = Math.round((this.queuedFrames / sampleRate) * 1000);
      this.#post({ type: "progress", turnId: this.turnId, playedMs: this.#playedMs(), queuedMs, rms });
    }
    this.sinceReport = 0;
    this.energy = 0;
  }

  /** @param {number} sample */
  #tap(sample) {
    if (!this.tapBuffer) return;
    this.tapBuffer[this.tapFilled] = sample;
    this.tapFilled += 1;
    if (this.tapFilled === TAP_FRAMES) this.#sendTap();
  }

  #sendTap() {
    if (!this.tapBuffer || this.tapFilled === 0) return;
    this.#post({ type: "tap", turnId: this.turnId, samples: this.tapBuffer.slice(0, this.tapFilled) });
    this.tapFilled = 0;
  }
}

registerProcessor("avatar-player", PlayerProcessor);
