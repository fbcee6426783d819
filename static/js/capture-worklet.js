// Runs in the audio thread: microphone samples in, audio frames (20 ms of PCM16 at 16 kHz) and their level out.
import { Resampler } from "./resampler.js";

const FRAME_SAMPLES = 320;
const OUTPUT_RATE = 16_000;

class CaptureProcessor extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate, OUTPUT_RATE);
    this.frame = new Int16Array(FRAME_SAMPLES);
    this.filled = 0;
    this.energy = 0;
    this.isClosed = false;
    this.port.onmessage = () => {
      this.isClosed = true;
    };
  }

  /** @param {Float32Array[][]} inputs */
  process(inputs) {
    if (this.isClosed) return false;
    const channels = inputs[0];
    if (channels.length === 0) return true;
    for (const sample of this.resampler.process(Float32Array.from(channels[0]))) {
      const clipped = Math.max(-1, Math.min(1, sample));
      this.energy += clipped * clipped;
      this.frame[this.filled] = clipped < 0 ? clipped * 32_768 : clipped * 32_767;
      this.filled += 1;
      if (this.filled === FRAME_SAMPLES) this.#send();
    }
    return true;
  }

  #send() {
    const frame = this.frame.buffer;
    this.port.postMessage({ frame, rms: Math.sqrt(this.energy / FRAME_SAMPLES) }, [frame]);
    this.frame = new Int16Array(FRAME_SAMPLES);
    this.filled = 0;
    this.energy = 0;
  }
}

registerProcessor("avatar-capture", CaptureProcessor);
