// Plays replies. Knows nothing of the socket: pieces of PCM16 go in, what has been heard comes out.
import { toLevel } from "./level.js";

export class Speaker {
  #node = null;
  #taps = new Set();
  #turnId = null;

  onplaying = () => {}; // ({turnId, playedMs, queuedMs, level}), about 20 times a second while there is sound
  onfinished = () => {}; // ({turnId, playedMs}): the reply was played to its end
  onflushed = () => {}; // ({turnId, playedMs}): the reply was cut off

  /** Prepare the loudspeaker. Rejects where AudioWorklet is missing. */
  async open(context) {
    await context.audioWorklet.addModule(new URL("./player-worklet.js", import.meta.url));
    this.context = context;
    this.#node = new AudioWorkletNode(context, "avatar-player", { numberOfInputs: 0, outputChannelCount: [1] });
    this.#node.port.onmessage = ({ data }) => this.#receive(data);
    this.#node.connect(context.destination);
    this.#post({ type: "tap", isOn: this.#taps.size > 0 });
  }

  /** Whether replies can be heard. */
  get isOpen() {
    return this.#node !== null;
  }

  get sampleRate() {
    return this.context.sampleRate;
  }

  /** The reply that is being played or will be, or null. */
  get turnId() {
    return this.#turnId;
  }

  begin(turnId, sampleRate) {
    if (!this.#node) return;
    this.#turnId = turnId;
    this.#post({ type: "begin", turnId, sampleRate });
  }

  push(pcm) {
    this.#post({ type: "push", pcm }, [pcm]);
  }

  end(turnId) {
    this.#post({ type: "end", turnId });
  }

  /** Fall silent at once. */
  flush() {
    this.#turnId = null;
    this.#post({ type: "flush" });
  }

  /** Call `callback({samples, sampleRate, turnId})` with exactly what is played. Returns a function that stops it. */
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

  #post(message, transfer = []) {
    this.#node?.port.postMessage(message, transfer);
  }

  #receive(message) {
    if (message.type === "progress") this.onplaying({ ...message, level: toLevel(message.rms) });
    else if (message.type === "tap") {
      for (const callback of this.#taps) callback({ ...message, sampleRate: this.sampleRate });
    } else if (message.type === "finished") {
      if (this.#turnId === message.turnId) this.#turnId = null;
      this.onfinished(message);
    } else if (message.type === "flushed") this.onflushed(message);
  }
}
