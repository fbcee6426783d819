import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { CloseCode } from "../../static/js/close-codes.js";
import { computeDelayMs, isFinal } from "../../static/js/reconnect-backoff.js";

describe("the delay before the next attempt", () => {
  const delays = (random) => [0, 1, 2, 3, 4, 5, 20].map((failures) => computeDelayMs({ failures, code: 1006, random }));

  test("doubles up to ten seconds", () => {
    assert.deepEqual(delays(1), [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
  });

  test("is spread over its second half", () => {
    assert.deepEqual(delays(0), [250, 500, 1000, 2000, 4000, 5000, 5000]);
  });

  test("is eight seconds at most while all places are taken, however often that was said", () => {
    for (const code of [CloseCode.SERVER_FULL, CloseCode.OVERLOADED]) {
      const full = (failures) => computeDelayMs({ failures, code, random: 1 });
      assert.deepEqual([full(0), full(9)], [8000, 8000]);
    }
  });
});

describe("a close code", () => {
  test("is final where only a person can help", () => {
    assert.deepEqual(
      [4401, 4403, 4404, 4409, 4410, 4411, 4412, 4430].filter(isFinal),
      [4401, 4403, 4404, 4409, 4410, 4411, 4412, 4430],
    );
  });

  test("is not final where the next attempt may succeed", () => {
    assert.deepEqual([1000, 1006, 1012, 4408, 4429, 4431, 4500].filter(isFinal), []);
  });
});
