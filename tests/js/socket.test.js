import assert from "node:assert/strict";
import { beforeEach, describe, mock, test } from "node:test";

import { Socket } from "../../static/js/socket.js";

class FakeWebSocket {
  static OPEN = 1;
  /** @type {FakeWebSocket[]} */
  static all = [];
  readyState = 0;
  bufferedAmount = 0;
  sent = [];

  constructor(url) {
    this.url = url;
    FakeWebSocket.all.push(this);
  }

  send(data) {
    this.sent.push(data);
  }

  close() {
    this.readyState = 3;
  }

  accept() {
    this.readyState = 1;
    this.onopen();
  }

  receive(message) {
    this.onmessage({ data: JSON.stringify(message) });
  }

  drop(code) {
    this.readyState = 3;
    this.onclose({ code });
  }
}

const latest = () => FakeWebSocket.all.at(-1);

describe("the socket", () => {
  let socket;
  let now;
  let drops;

  beforeEach(() => {
    FakeWebSocket.all = [];
    now = 0;
    drops = [];
    mock.timers.reset();
    mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
    mock.method(Math, "random", () => 1);
    mock.method(performance, "now", () => now);
    globalThis.WebSocket = FakeWebSocket;
    globalThis.window = Object.assign(new EventTarget(), { location: { href: "https://avatar.test/c/1/" } });
    socket = new Socket("/ws/chat");
    socket.ondropped = ({ retryInMs }) => drops.push(retryInMs);
  });

  const pass = (ms) => {
    now += ms;
    mock.timers.tick(ms);
  };
  const ready = () => latest().receive({ type: "status", stage: "ready" });

  test("names the conversation, or that nothing is to be kept", () => {
    socket.open({ conversationId: "c", isKept: true });
    assert.equal(latest().url.href, "wss://avatar.test/ws/chat?conversation=c");

    socket.open({ conversationId: null, isKept: false });
    assert.equal(latest().url.href, "wss://avatar.test/ws/chat?keep=no");
  });

  test("waits twice as long after each failure, and starts over once it was ready", () => {
    socket.open({ conversationId: null, isKept: true });
    latest().drop(1006);
    pass(499);
    assert.equal(FakeWebSocket.all.length, 1);
    pass(1);
    assert.equal(FakeWebSocket.all.length, 2);
    latest().drop(1006);
    pass(1000);
    latest().accept();
    latest().drop(1006); // open, but never ready
    pass(2000);
    latest().accept();
    ready();
    latest().drop(1006);

    assert.deepEqual(drops, [500, 1000, 2000, 500]);
  });

  test("starts over once it waits for a place", () => {
    socket.open({ conversationId: null, isKept: true });
    latest().drop(1006);
    pass(500);
    latest().accept();
    latest().receive({ type: "waiting", place: 1, count: 1 });
    latest().drop(1006);

    assert.deepEqual(drops, [500, 500]);
  });

  test("connects at once when the browser is online again", () => {
    socket.open({ conversationId: null, isKept: true });
    latest().drop(1006);

    window.dispatchEvent(new Event("online"));

    assert.equal(FakeWebSocket.all.length, 2);
    pass(60_000);
    assert.equal(FakeWebSocket.all.length, 2);
  });

  test("stays closed after a code that only a person can help with", () => {
    const refusals = [];
    socket.onrefused = (code) => refusals.push(code);
    socket.open({ conversationId: null, isKept: true });

    latest().drop(4409);
    pass(60_000);

    assert.deepEqual([refusals, drops, FakeWebSocket.all.length], [[4409], [], 1]);
  });

  test("gives up a connection on which nothing has come for 25 seconds", () => {
    socket.open({ conversationId: null, isKept: true });
    latest().accept();

    pass(10_000);
    pass(10_000);
    assert.deepEqual(
      latest().sent.map((sent) => JSON.parse(sent).nonce),
      ["1", "2"],
    );
    pass(10_000);

    assert.deepEqual(drops, [500]);
  });

  test("drops audio while the connection is stalled", () => {
    socket.open({ conversationId: null, isKept: true });
    latest().accept();
    latest().bufferedAmount = 64_001;

    socket.sendAudio(new ArrayBuffer(640));

    assert.deepEqual([latest().sent.length, socket.droppedFrames], [0, 1]);
  });

  test("passes on nothing that arrives after it was closed", () => {
    const messages = [];
    socket.onmessage = (message) => messages.push(message.type);
    socket.open({ conversationId: null, isKept: true });
    latest().accept();
    ready();
    socket.close();

    ready();

    assert.deepEqual(messages, ["status"]);
  });
});
