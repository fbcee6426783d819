// The line to the server: opens, reopens with back-off, notices when it is dead. Knows nothing of sound or of the page.

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 10_000;
const FULL_DELAY_MS = 8_000;
const PING_EVERY_MS = 10_000;
const DEAD_AFTER_MS = 25_000;
const MOST_BUFFERED_BYTES = 64_000; // two seconds of microphone: more than that waiting is a line that does not move

/** What the server closes with, see docs/protocol.md. */
export const CloseCode = {
  NOT_LOGGED_IN: 4401,
  WRONG_ORIGIN: 4403,
  UNKNOWN_CONVERSATION: 4404,
  REPLACED: 4409,
  IDLE: 4410,
  SERVER_FULL: 4429,
  TOO_MANY_CALLS: 4430,
};
/** After these only a person may try again. */
const FINAL_CODES = new Set(Object.values(CloseCode).filter((code) => code !== CloseCode.SERVER_FULL));

export class Socket {
  #webSocket = null;
  #isWanted = false;
  #attempts = 0;
  #retryTimer = 0;
  #pingTimer = 0;
  #lastHeardAt = 0;
  #nonce = 0;

  conversationId = null; // the conversation to go on with
  isKept = true; // whether anything of a conversation that begins now is to be stored
  droppedFrames = 0;

  onmessage = () => {}; // (object)
  onaudio = () => {}; // (ArrayBuffer)
  onopen = () => {};
  ondropped = () => {}; // ({code, retryInMs}): the line is gone; it will be tried again by itself
  onrefused = () => {}; // (code): the line is gone and will stay so

  constructor(path) {
    this.path = path;
    this.retryNow = this.retryNow.bind(this);
  }

  get isOpen() {
    return this.#webSocket?.readyState === WebSocket.OPEN;
  }

  open() {
    this.#isWanted = true;
    this.#attempts = 0;
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

  /** Do not wait for the next attempt. */
  retryNow() {
    if (!this.#isWanted || this.#webSocket) return;
    clearTimeout(this.#retryTimer);
    this.#connect();
  }

  /** Send a message. Returns whether there was a line to send it on. */
  send(message) {
    if (!this.isOpen) return false;
    this.#webSocket.send(JSON.stringify(message));
    return true;
  }

  /** Send microphone audio, or drop it when the line does not keep up. */
  sendAudio(frame) {
    if (!this.isOpen) return;
    if (this.#webSocket.bufferedAmount > MOST_BUFFERED_BYTES) this.droppedFrames += 1;
    else this.#webSocket.send(frame);
  }

  #connect() {
    const url = new URL(this.path, window.location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    if (this.conversationId) url.searchParams.set("conversation", this.conversationId);
    else if (!this.isKept) url.searchParams.set("keep", "no");
    const webSocket = new WebSocket(url);
    webSocket.binaryType = "arraybuffer";
    this.#webSocket = webSocket;
    webSocket.onopen = () => {
      this.#lastHeardAt = performance.now();
      this.#pingTimer = setInterval(() => this.#ping(), PING_EVERY_MS);
      this.onopen();
    };
    webSocket.onmessage = ({ data }) => {
      this.#lastHeardAt = performance.now();
      if (data instanceof ArrayBuffer) this.onaudio(data);
      else {
        const message = JSON.parse(data);
        if (message.type === "status" && message.stage === "ready") this.#attempts = 0;
        this.onmessage(message);
      }
    };
    webSocket.onclose = ({ code }) => this.#lose(webSocket, code);
  }

  #ping() {
    // A phone that changed networks keeps a dead line open for minutes.
    if (performance.now() - this.#lastHeardAt > DEAD_AFTER_MS) {
      const webSocket = this.#webSocket;
      webSocket.close();
      this.#lose(webSocket, 1006);
    } else {
      this.#nonce += 1;
      this.send({ type: "ping", nonce: String(this.#nonce) });
    }
  }

  #lose(webSocket, code) {
    if (this.#webSocket !== webSocket) return;
    this.#webSocket = null;
    clearInterval(this.#pingTimer);
    if (!this.#isWanted) return;
    if (FINAL_CODES.has(code)) {
      this.close();
      this.onrefused(code);
      return;
    }
    const base = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#attempts);
    const longest = code === CloseCode.SERVER_FULL ? FULL_DELAY_MS : base;
    const retryInMs = Math.round(longest * (0.5 + Math.random() / 2)); // not everybody at the same moment
    this.#attempts += 1;
    this.#retryTimer = setTimeout(() => this.#connect(), retryInMs);
    this.ondropped({ code, retryInMs });
  }
}
