// Levels, formats and UI strings.
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { formatBytes, formatClock, formatPercent, formatSeconds, listLatencies } from "../../static/js/format.js";
import { toLevel } from "../../static/js/level.js";
import { replaceCatalogue, say } from "../../static/js/ui-strings.js";

describe("a level", () => {
  test("is 0 in a quiet room and 1 in loud speech", () => {
    const db = (value) => 10 ** (value / 20);
    assert.deepEqual(
      [0, db(-80), db(-54), db(-12), 1].map(toLevel).map((level) => Number(level.toFixed(6))),
      [0, 0, 0, 1, 1],
    );
    assert.equal(toLevel(db(-33)).toFixed(3), "0.500");
  });
});

describe("a format", () => {
  test("of a share is a whole percentage", () =>
    assert.deepEqual([0, 0.456, 1].map(formatPercent), ["0%", "46%", "100%"]));
  test("of seconds has a digit below ten", () =>
    assert.deepEqual([0, 9.94, 10, 59.6].map(formatSeconds), ["0.0", "9.9", "10", "60"]));
  test("of bytes has the unit that fits", () => {
    assert.deepEqual([0, 1023, 1024, 1_048_575, 1_572_864].map(formatBytes), [
      "0\u00a0B",
      "1023\u00a0B",
      "1\u00a0KB",
      "1024\u00a0KB",
      "1.5\u00a0MB",
    ]);
  });
  test("of a position is minutes and seconds", () =>
    assert.deepEqual([0, 4_400, 65_000, 600_000].map(formatClock), ["0:00", "0:04", "1:05", "10:00"]));
});

describe("latencies", () => {
  test("are listed in the order of the turn, in seconds, without those that are missing", () => {
    assert.deepEqual(listLatencies({ total: 5100, stt: 640, ttft: null, ttfa: "" }), [
      { stage: "stt", seconds: "0.64" },
      { stage: "total", seconds: "5.10" },
    ]);
    assert.deepEqual(listLatencies(null), []);
  });
});

describe("UI strings", () => {
  replaceCatalogue({ plain: "停止", filled: "{name} · {name} {number}" });

  test("are looked up", () => assert.equal(say("plain"), "停止"));
  test("are filled in", () => assert.equal(say("filled", { name: "A", number: 0 }), "A · A 0"));
  test("that are missing are an error", () => assert.throws(() => say("missing"), /no string for missing/));
});
