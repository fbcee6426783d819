// The microphone as audio frames: 20 ms of PCM16 at 16 kHz. Knows nothing of the socket.
import { toLevel } from "./level.js";

/** @import { MicrophoneReason } from "./call-types.js" */

const CONSTRAINTS = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };

/** There is no microphone, for `reason`. */
export class MicrophoneError extends Error {
  /** @param {MicrophoneReason} reason @param {unknown} [cause] */
  constructor(reason, cause) {
    super(`microphone: ${reason}`, { cause });
    this.reason = reason;
  }
}

/** By the name of the browser's error. @type {Readonly<Record<string, MicrophoneReason>>} */
const REASONS = {
  NotAllowedError: "denied",
  SecurityError: "denied",
  NotFoundError: "missing",
  OverconstrainedError: "missing",
  NotReadableError: "taken",
  AbortError: "taken",
};

/** Open the microphone's stream. Throws MicrophoneError. @param {MediaTrackConstraints} constraints */
export async function openStream(constraints) {
  if (!window.isSecureContext) throw new MicrophoneError("insecure");
  if (!navigator.mediaDevices?.getUserMedia) throw new MicrophoneError("unsupported");
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: constraints });
  } catch (error) {
    throw new MicrophoneError(REASONS[error instanceof Error ? error.name : ""] ?? "unsupported", error);
  }
}

export class Microphone {
  /** @type {MediaStream | null} */
  #stream = null;
  /** @type {AudioNode[]} */
  #nodes = [];
  #opening = 0; // generation of the latest open or close: the stream of an earlier one is closed again
  #isMuted = false;

  onframe = (/** @type {ArrayBuffer} */ _frame, /** @type {number} */ _level) => {};
  /** The device was unplugged or the permission withdrawn. */
  onlost = () => {};

  get isOpen() {
    return this.#stream !== null;
  }

  /**
   * Ask for the microphone and start to listen. Returns false if it was closed while the person was asked.
   * Throws MicrophoneError.
   *
   * @param {AudioContext} context
   */
  async open(context) {
    if (window.isSecureContext && !context.audioWorklet) throw new MicrophoneError("unsupported");
    this.#opening += 1;
    const opening = this.#opening;
    const stream = await openStream(CONSTRAINTS);
    if (opening === this.#opening)
      await context.audioWorklet.addModule(new URL("./capture-worklet.js", import.meta.url));
    if (opening !== this.#opening) {
      for (const track of stream.getTracks()) track.stop();
      return false;
    }
    const source = context.createMediaStreamSource(stream);
    const capture = new AudioWorkletNode(context, "avatar-capture", { channelCount: 1, channelCountMode: "explicit" });
    capture.port.onmessage = ({ data }) => this.onframe(data.frame, this.#isMuted ? 0 : toLevel(data.rms));
    // Some browsers only run a node that leads to the loudspeaker; this one is silent.
    source.connect(capture).connect(context.destination);
    this.#stream = stream;
    this.#nodes = [source, capture];
    for (const track of stream.getAudioTracks()) {
      track.enabled = !this.#isMuted;
      track.addEventListener("ended", () => {
        if (this.#stream !== stream) return;
        this.close();
        this.onlost();
      });
    }
    return true;
  }

  /** Muted, the browser itself delivers silence. @param {boolean} isMuted */
  setMuted(isMuted) {
    this.#isMuted = isMuted;
    for (const track of this.#stream?.getAudioTracks() ?? []) track.enabled = !isMuted;
  }

  close() {
    this.#opening += 1;
    const stream = this.#stream;
    this.#stream = null;
    for (const node of this.#nodes) {
      if (node instanceof AudioWorkletNode) node.port.postMessage("close");
      node.disconnect();
    }
    this.#nodes = [];
    for (const track of stream?.getTracks() ?? []) track.stop();
  }
}
