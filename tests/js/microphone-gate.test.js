import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { MicrophoneGate } from "../../static/js/microphone-gate.js";

const handsFree = (isMuted) => ({ settings: { mode: "hands_free", is_muted: isMuted }, isHolding: false });
const holdToTalk = (isHolding) => ({ settings: { mode: "hold_to_talk", is_muted: false }, isHolding });

describe("the microphone's gate", () => {
  test("lets everything pass hands-free", () => {
    const gate = new MicrophoneGate();

    assert.ok(gate.accept("frame", handsFree(false)));
    assert.deepEqual(gate.takePreroll(), []);
  });

  test("lets 3.5 s of silence pass after muting, so that the server sees the pause", () => {
    const gate = new MicrophoneGate();

    const passed = Array.from({ length: 500 }, () => gate.accept("frame", handsFree(true)));

    assert.equal(passed.filter(Boolean).length * 20, 3500);
    assert.ok(gate.accept("frame", handsFree(false)));
    assert.ok(gate.accept("frame", handsFree(true)));
  });

  test("keeps the last 300 ms from before the key was pressed, once", () => {
    const gate = new MicrophoneGate();
    for (let frame = 1; frame <= 40; frame += 1) assert.ok(!gate.accept(frame, holdToTalk(false)));

    const frames = gate.takePreroll();

    assert.deepEqual([frames.length * 20, frames[0], frames.at(-1)], [300, 26, 40]);
    assert.ok(gate.accept(41, holdToTalk(true)));
    assert.deepEqual(gate.takePreroll(), []);
  });
});
