import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { Resampler } from "../../static/js/resampler.js";

/** One second of a sine, resampled in blocks as the worklets do. */
function resampleTone(inputRate, outputRate, frequencyHz, blockSize = 128) {
  const resampler = new Resampler(inputRate, outputRate);
  const output = [];
  for (let start = 0; start < inputRate; start += blockSize) {
    const block = new Float32Array(Math.min(blockSize, inputRate - start));
    for (let i = 0; i < block.length; i += 1)
      block[i] = Math.sin((2 * Math.PI * frequencyHz * (start + i)) / inputRate);
    output.push(...resampler.process(block));
  }
  output.push(...resampler.flush());
  return output;
}

function rms(samples) {
  return Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);
}

/** The largest difference from the sine that should have come out, away from both ends. */
function worstError(samples, rate, frequencyHz) {
  return Math.max(
    ...samples
      .slice(1000, -1000)
      .map((sample, i) => Math.abs(sample - Math.sin((2 * Math.PI * frequencyHz * (i + 1000)) / rate))),
  );
}

describe("the resampler", () => {
  for (const [inputRate, outputRate] of [
    [48_000, 16_000],
    [44_100, 16_000],
    [24_000, 48_000],
    [24_000, 44_100],
    [16_000, 16_000],
  ]) {
    test(`keeps a tone of 1 kHz from ${inputRate} to ${outputRate} Hz, without delay`, () => {
      const output = resampleTone(inputRate, outputRate, 1000);

      assert.ok(Math.abs(output.length - outputRate) <= 2);
      assert.ok(worstError(output, outputRate, 1000) < 0.01);
    });
  }

  for (const inputRate of [48_000, 44_100]) {
    test(`removes what would fold back, from ${inputRate} Hz`, () => {
      assert.ok(rms(resampleTone(inputRate, 16_000, 10_000).slice(1000, -1000)) < 0.001);
    });
  }

  test("does not depend on the size of the blocks", () => {
    const once = resampleTone(44_100, 16_000, 440, 44_100);
    const often = resampleTone(44_100, 16_000, 440, 7);

    assert.ok(once.every((sample, i) => Math.abs(sample - often[i]) < 1e-6));
  });

  test("starts over after a flush", () => {
    const resampler = new Resampler(48_000, 16_000);
    resampler.process(new Float32Array(4800).fill(1));
    resampler.flush();

    assert.ok(rms([...resampler.process(new Float32Array(4800))]) === 0);
  });
});
