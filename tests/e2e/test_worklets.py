"""Sample rates, joins and cuts: what the worklets do to sound, in the browser that runs them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.e2e.conftest import OpenCall

pytestmark = [pytest.mark.browser, pytest.mark.timeout(360)]

_RESAMPLE = """async ([inputRate, outputRate, frequency, blockSize]) => {
  const { Resampler } = await import("/static/js/resampler.js");
  const resampler = new Resampler(inputRate, outputRate);
  const result = [];
  for (let start = 0; start < inputRate; start += blockSize) {
    const block = new Float32Array(Math.min(blockSize, inputRate - start));
    for (let i = 0; i < block.length; i += 1) block[i] = Math.sin(2 * Math.PI * frequency * (start + i) / inputRate);
    result.push(...resampler.process(block));
  }
  result.push(...resampler.flush());
  return result;
}"""

#: Plays a tone in pieces of 200 ms as a reply, and cuts it off after `stopAfterMs` if that is not null.
_PLAY = """async ([frequency, pieces, stopAfterMs]) => {
  const { speaker } = window.avatar;
  const ended = new Promise((resolve) => {
    const finished = speaker.onfinished;
    const flushed = speaker.onflushed;
    speaker.onfinished = (report) => { finished(report); resolve(report); };
    speaker.onflushed = (report) => { flushed(report); resolve(report); };
  });
  speaker.begin("11111111-1111-4111-8111-111111111111", 24000);
  for (let piece = 0; piece < pieces; piece += 1) {
    const pcm = new Int16Array(4800);
    for (let i = 0; i < 4800; i += 1) {
      pcm[i] = 12000 * Math.sin(2 * Math.PI * frequency * (piece * 4800 + i) / 24000);
    }
    speaker.push(pcm.buffer);
  }
  speaker.end("11111111-1111-4111-8111-111111111111");
  if (stopAfterMs !== null) setTimeout(() => speaker.flush(), stopAfterMs);
  const report = await ended;
  await new Promise((resolve) => setTimeout(resolve, 200));
  return report;
}"""


def measure_tone(samples: NDArray[Any], rate_hz: int) -> tuple[float, float]:
    """The strongest frequency, and the amplitude of a sine as strong as the whole."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * rate_hz / len(samples), float(np.sqrt(2 * np.mean(samples**2)))


class TestResampler:
    @pytest.mark.parametrize(
        ("input_rate", "output_rate"), [(48_000, 16_000), (44_100, 16_000), (24_000, 48_000), (24_000, 44_100)]
    )
    async def test_keeps_what_both_rates_can_hold(self, open_call: OpenCall, input_rate: int, output_rate: int) -> None:
        call = await open_call()

        result = np.array(await call.page.evaluate(_RESAMPLE, [input_rate, output_rate, 1000, 128]))

        assert abs(len(result) - output_rate) <= 2
        frequency, amplitude = measure_tone(result[2000:-2000], output_rate)
        assert frequency == pytest.approx(1000, abs=2)
        assert amplitude == pytest.approx(1, abs=0.01)

    @pytest.mark.parametrize("input_rate", [48_000, 44_100])
    async def test_lets_nothing_through_that_would_fold_back(self, open_call: OpenCall, input_rate: int) -> None:
        call = await open_call()

        result = np.array(await call.page.evaluate(_RESAMPLE, [input_rate, 16_000, 10_000, 128]))

        _frequency, amplitude = measure_tone(result[2000:-2000], 16_000)
        assert amplitude < 0.001


class TestSpeaker:
    async def test_joins_pieces_without_a_click(self, open_call: OpenCall) -> None:
        call = await open_call()
        await call.page.click("#start-typing")
        await call.wait_for("typing")
        await call.start_tap()

        report = await call.page.evaluate(_PLAY, [300, 5, None])

        samples, rate = await call.read_tap()
        assert report["playedMs"] == pytest.approx(1000, abs=5)
        steepest = 12_000 / 32_768 * 2 * np.pi * 300 / rate
        assert float(np.abs(np.diff(samples)).max()) < steepest * 1.3
        loud = samples[np.abs(samples) > 0.001]
        frequency, _amplitude = measure_tone(loud, rate)
        assert frequency == pytest.approx(300, abs=3)

    async def test_falls_silent_at_once_and_without_a_click(self, open_call: OpenCall) -> None:
        call = await open_call()
        await call.page.click("#start-typing")
        await call.wait_for("typing")
        await call.start_tap()

        report = await call.page.evaluate(_PLAY, [300, 10, 500])

        samples, rate = await call.read_tap()
        assert 200 < report["playedMs"] < 800
        assert abs(len(samples) / rate * 1000 - report["playedMs"]) < 60
        steepest = 12_000 / 32_768 * 2 * np.pi * 300 / rate
        assert float(np.abs(np.diff(samples)).max()) < steepest * 1.3
