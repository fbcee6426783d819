// Records the microphone into one file, in a format that the browser has. Knows no page and no server.
import { toLevel } from "./level.js";
import { MicrophoneError, openStream } from "./microphone.js";

// Unprocessed: noise and echo suppression change how a person sounds.
const CONSTRAINTS = { echoCancellation: false, noiseSuppression: false, autoGainControl: true, channelCount: 1 };
const KINDS = ["audio/webm;codecs=opus", "audio/mp4", "audio/ogg;codecs=opus"];
const BITS_PER_SECOND = 128_000;
const LEVEL_EVERY_MS = 50;

export class Recorder {
  /** @type {MediaStream | null} */
  #stream = null;
  /** @type {MediaRecorder | null} */
  #recorder = null;
  /** @type {AudioContext | null} */
  #context = null;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;
  #startedAt = 0;

  /** The level is 0 to 1. */
  onlevel = (/** @type {number} */ _level, /** @type {number} */ _seconds) => {};
  /** `isAtEnd`: it was stopped at the longest duration. */
  onend = (/** @type {{ blob: Blob, seconds: number, isAtEnd: boolean }} */ _recorded) => {};
  /** The device was unplugged or the permission withdrawn; what was recorded comes with `onend`. */
  onlost = () => {};

  /** @param {{ longestS: number }} options */
  constructor({ longestS }) {
    this.longestS = longestS;
  }

  get isRecording() {
    return this.#recorder?.state === "recording";
  }

  /** Ask for the microphone and record until `stop`, at most `longestS`. Throws MicrophoneError. */
  async start() {
    const mimeType = window.MediaRecorder ? KINDS.find((kind) => MediaRecorder.isTypeSupported(kind)) : undefined;
    if (window.isSecureContext && !mimeType) throw new MicrophoneError("unsupported");
    const stream = await openStream(CONSTRAINTS);
    this.#stream = stream;
    const recorder = new MediaRecorder(stream, { mimeType, audioBitsPerSecond: BITS_PER_SECOND });
    /** @type {Blob[]} */
    const pieces = [];
    let isAtEnd = false;
    recorder.addEventListener("dataavailable", ({ data }) => pieces.push(data));
    recorder.addEventListener("stop", () => {
      const seconds = Math.min(this.longestS, (performance.now() - this.#startedAt) / 1000);
      this.#close();
      this.onend({ blob: new Blob(pieces, { type: mimeType?.split(";")[0] }), seconds, isAtEnd });
    });
    stream.getAudioTracks()[0].addEventListener("ended", () => {
      if (this.#stream !== stream) return;
      this.stop();
      this.onlost();
    });
    const readLevel = this.#meter(stream);
    this.#recorder = recorder;
    recorder.start();
    this.#startedAt = performance.now();
    this.#timer = setInterval(() => {
      const seconds = (performance.now() - this.#startedAt) / 1000;
      this.onlevel(readLevel(), Math.min(seconds, this.longestS));
      if (seconds < this.longestS) return;
      isAtEnd = true;
      this.stop();
    }, LEVEL_EVERY_MS);
  }

  stop() {
    clearInterval(this.#timer);
    if (this.isRecording) this.#recorder?.stop();
  }

  /** Return a function that reads the level. @param {MediaStream} stream */
  #meter(stream) {
    const context = new AudioContext();
    this.#context = context;
    const analyser = context.createAnalyser();
    analyser.fftSize = 1024;
    context.createMediaStreamSource(stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    return () => {
      analyser.getFloatTimeDomainData(samples);
      return toLevel(Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length));
    };
  }

  #close() {
    clearInterval(this.#timer);
    const stream = this.#stream;
    this.#stream = null;
    this.#recorder = null;
    for (const track of stream?.getTracks() ?? []) track.stop();
    this.#context?.close();
    this.#context = null;
  }
}
