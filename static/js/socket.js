// The voice socket: connects, reconnects with back-off, detects a dead connection. Knows nothing of sound or of the page.
import { computeDelayMs, isFinal } from "./reconnect-backoff.js";

/** @import { ClientMessage, ServerMessage } from "./messages.js" */

const PING_EVERY_MS = 10_000;
const DEAD_AFTER_MS = 25_000;
const MAX_BUFFERED_BYTES = 64_000; // two seconds of microphone: with more than that, the connection has stalled

export class Socket {
  /** @type {WebSocket | null} */
  #webSocket = null;
  #isWanted = false;
  #failures = 0; // in a row
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retryTimer;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #pingTimer;
  #lastHeardAt = 0;
  #nonce = 0;

  /** The conversation to go on with. @type {string | null} */
  conversationId = null;
  #isKept = true;
  droppedFrames = 0;

  onmessage = (/** @type {ServerMessage} */ _message) => {};
  onaudio = (/** @type {ArrayBuffer} */ _pcm) => {};
  /** The connection is lost, and will be retried. */
  ondropped = (/** @type {{ code: number, retryInMs: number }} */ _drop) => {};
  /** The connection was closed for good. */
  onrefused = (/** @type {number} */ _code) => {};

  /** @param {string} path */
  constructor(path) {
    this.path = path;
    this.retryNow = this.retryNow.bind(this);
  }

  get isOpen() {
    return this.#webSocket?.readyState === WebSocket.OPEN;
  }

  /** Connect, and stay connected. @param {{ conversationId: string | null, isKept: boolean }} options */
  open({ conversationId, isKept }) {
    this.conversationId = conversationId;
    this.#isKept = isKept;
    this.#isWanted = true;
    this.#failures = 0;
    window.addEventListener("online", this.retryNow);
    this.#connect();
  }

  /** Hang up. */
  close() {
    this.#isWanted = false;
    window.removeEventListener("online", this.retryNow);
    clearTimeout(this.#retryTimer);
    clearInterval(this.#pingTimer);
    this.#webSocket?.close(1000);
    this.#webSocket = null;
  }

  /** Connect now instead of after the delay. */
  retryNow() {
    if (!this.#isWanted || this.#webSocket) return;
    clearTimeout(this.#retryTimer);
    this.#connect();
  }

  /** Send a message. It is dropped while there is no connection. @param {ClientMessage} message */
  send(message) {
    if (this.isOpen) this.#webSocket?.send(JSON.stringify(message));
  }

  /** Send microphone audio. It is dropped while there is no connection or while the connection is stalled. @param {ArrayBuffer} frame */
  sendAudio(frame) {
    if (!this.#webSocket || !this.isOpen) return;
    if (this.#webSocket.bufferedAmount > MAX_BUFFERED_BYTES) this.droppedFrames += 1;
    else this.#webSocket.send(frame);
  }

  #connect() {
    const url = new URL(this.path, window.location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    if (this.conversationId) url.searchParams.set("conversation", this.conversationId);
    else if (!this.#isKept) url.searchParams.set("keep", "no");
    const webSocket = new WebSocket(url);
    webSocket.binaryType = "arraybuffer";
    this.#webSocket = webSocket;
    webSocket.onopen = () => {
      this.#lastHeardAt = performance.now();
      this.#pingTimer = setInterval(() => this.#ping(webSocket), PING_EVERY_MS);
    };
    webSocket.onmessage = ({ data }) => {
      if (this.#webSocket !== webSocket) return; // it was on its way when this socket was closed
      this.#lastHeardAt = performance.now();
      if (data instanceof ArrayBuffer) this.onaudio(data);
      else {
        const message = JSON.parse(data);
        if (message.stage === "ready" || message.type === "waiting") this.#failures = 0;
        this.onmessage(message);
      }
    };
    webSocket.onclose = ({ code }) => this.#lose(webSocket, code);
  }

  /** @param {WebSocket} webSocket */
  #ping(webSocket) {
    // A phone that changed networks keeps a dead connection open for minutes.
    if (performance.now() - this.#lastHeardAt > DEAD_AFTER_MS) {
      webSocket.close();
      this.#lose(webSocket, 1006);
    } else {
      this.#nonce += 1;
      this.send({ type: "ping", nonce: String(this.#nonce) });
    }
  }

  /** @param {WebSocket} webSocket @param {number} code */
  #lose(webSocket, code) {
    if (this.#webSocket !== webSocket) return;
    this.#webSocket = null;
    clearInterval(this.#pingTimer);
    if (!this.#isWanted) return;
    if (isFinal(code)) {
      this.close();
      this.onrefused(code);
      return;
    }
    const retryInMs = computeDelayMs({ failures: this.#failures, code, random: Math.random() });
    this.#failures += 1;
    this.#retryTimer = setTimeout(() => this.#connect(), retryInMs);
    this.ondropped({ code, retryInMs });
  }
}
