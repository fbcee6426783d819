import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { describeCall } from "../../static/js/call-state.js";

const LIVE = {
  phase: "live",
  waitingPlace: null,
  trouble: null,
  stage: "listening",
  mode: "hands_free",
  isMuted: false,
  isHolding: false,
  isHearing: true,
  isPlaying: false,
  isUserSpeaking: false,
  isReplying: false,
  heardNothing: false,
};

/** Rows of: the differences from a live call that listens, and the key, mood and hint that a person sees. */
const ROWS = [
  [{ phase: "idle", trouble: "warming" }, "idle", "resting"],
  [{ phase: "asking" }, "asking", "resting"],
  [{ phase: "connecting" }, "connecting", "resting"],
  [{ phase: "connecting", trouble: "full" }, "full", "troubled"],
  [{ phase: "waiting", waitingPlace: 3 }, "waiting", "resting", "waiting"],
  [{ phase: "waiting", waitingPlace: 3, trouble: "warming" }, "waiting", "resting", "waiting"],
  [{ phase: "waiting", trouble: "reconnecting" }, "reconnecting", "troubled"],
  [{ trouble: "reconnecting", isPlaying: true }, "reconnecting", "troubled"],
  [{}, "listening", "listening", "listening"],
  [{ heardNothing: true }, "listening", "listening", "heardNothing"],
  [{ isMuted: true }, "muted", "resting", "muted"],
  [{ isUserSpeaking: true }, "hearing", "hearing"],
  [{ isUserSpeaking: true, isPlaying: true }, "hearing", "hearing"],
  [{ stage: "stt" }, "recognising", "thinking"],
  [{ stage: "llm", isReplying: true }, "thinking", "thinking"],
  [{ isPlaying: true, isReplying: true }, "speaking", "speaking", "speaking"],
  [{ isPlaying: true, isMuted: true }, "speaking", "speaking", null],
  [{ isPlaying: true, mode: "hold_to_talk" }, "speaking", "speaking", null],
  [{ isHearing: false }, "typing", "resting"],
  [{ mode: "hold_to_talk" }, "hold", "listening", "hold"],
  [{ mode: "hold_to_talk", heardNothing: true }, "hold", "listening", "heardNothing"],
  [{ mode: "hold_to_talk", isHolding: true, isReplying: true }, "holding", "hearing"],
];

describe("what a person sees of a call", () => {
  for (const [changes, key, mood, hint] of ROWS) {
    test(`${JSON.stringify(changes)} is ${key}`, () => {
      const shown = describeCall({ ...LIVE, ...changes });

      assert.deepEqual([shown.key, shown.mood, shown.hint], [key, mood, hint]);
    });
  }

  test("says how many wait before them", () => {
    const before = [1, 2, 7].map((waitingPlace) => describeCall({ ...LIVE, phase: "waiting", waitingPlace }).before);

    assert.deepEqual(before, [0, 1, 6]);
  });
});
