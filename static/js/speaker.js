// Plays replies: chunks of PCM16 in, reports of what was played out. Knows nothing of the socket.
import { toLevel } from "./level.js";

/**
 * @import { FromPlayer, ToPlayer } from "./player-messages.js"
 * @typedef {{ turnId: string | null, samples: Float32Array, sampleRate: number }} Tapped
 */

export class Speaker {
  /** @type {AudioWorkletNode | null} */
  #node = null;
  /** @type {Set<(played: Tapped) => void>} */
  #taps = new Set();
  /** @type {string | null} */
  #turnId = null;
  #sampleRate = 0;

  /** Called about 20 times a second while there is sound. */
  onplaying = (
    /** @type {{ turnId: string | null, playedMs: number, queuedMs: number, level: number }} */ _progress,
  ) => {};
  /** The reply was played to its end. */
  onfinished = (/** @type {{ turnId: string, playedMs: number }} */ _played) => {};
  /** The reply was cut off. */
  onflushed = (/** @type {{ turnId: string | null, playedMs: number }} */ _played) => {};

  /** Prepare the loudspeaker. Rejects where AudioWorklet is missing. @param {AudioContext} context */
  async open(context) {
    await context.audioWorklet.addModule(new URL("./player-worklet.js", import.meta.url));
    this.#sampleRate = context.sampleRate;
    const node = new AudioWorkletNode(context, "avatar-player", { numberOfInputs: 0, outputChannelCount: [1] });
    node.port.onmessage = ({ data }) => this.#receive(data);
    node.connect(context.destination);
    this.#node = node;
    this.#post({ type: "tap", isOn: this.#taps.size > 0 });
  }

  /** Whether replies can be heard. */
  get isOpen() {
    return this.#node !== null;
  }

  /** The reply that is being played or will be, or null. */
  get turnId() {
    return this.#turnId;
  }

  /** @param {string} turnId @param {number} sampleRate */
  begin(turnId, sampleRate) {
    if (!this.#node) return;
    this.#turnId = turnId;
    this.#post({ type: "begin", turnId, sampleRate });
  }

  /** @param {ArrayBuffer} pcm */
  push(pcm) {
    this.#post({ type: "push", pcm }, [pcm]);
  }

  /** @param {string} turnId */
  end(turnId) {
    this.#post({ type: "end", turnId });
  }

  /** Fall silent at once. */
  flush() {
    this.#turnId = null;
    this.#post({ type: "flush" });
  }

  /** Call `callback` with exactly what is played. Returns a function that stops it. @param {(played: Tapped) => void} callback */
  tap(callback) {
    this.#taps.add(callback);
    this.#post({ type: "tap", isOn: true });
    return () => {
      this.#taps.delete(callback);
      this.#post({ type: "tap", isOn: this.#taps.size > 0 });
    };
  }

  close() {
    this.#post({ type: "close" });
    this.#node?.disconnect();
    this.#node = null;
    this.#turnId = null;
  }

  /** @param {ToPlayer} message @param {Transferable[]} transfer */
  #post(message, transfer = []) {
    this.#node?.port.postMessage(message, transfer);
  }

  /** @param {FromPlayer} message */
  #receive(message) {
    if (message.type === "progress") this.onplaying({ ...message, level: toLevel(message.rms) });
    else if (message.type === "tap") {
      for (const callback of this.#taps) callback({ ...message, sampleRate: this.#sampleRate });
    } else if (message.type === "finished") {
      if (this.#turnId === message.turnId) this.#turnId = null;
      this.onfinished(message);
    } else if (message.type === "flushed") this.onflushed(message);
  }
}
