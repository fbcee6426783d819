from __future__ import annotations

import numpy as np
import pytest

from inference.audio.pcm import Samples
from inference.audio.resample import resample

RATES_HZ = (8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000, 192_000)


def make_tone(frequency_hz: float, rate_hz: int, *, seconds: float = 1.0) -> Samples:
    return np.sin(2 * np.pi * frequency_hz * np.arange(round(rate_hz * seconds)) / rate_hz).astype(np.float32)


def middle(samples: Samples) -> Samples:
    """Without the tenths at both ends, where a tone begins and breaks off."""
    return samples[len(samples) // 10 : -len(samples) // 10]


def measure_db(samples: Samples) -> float:
    """The level of samples, 0 for a tone of full scale."""
    return float(10 * np.log10(2 * np.mean(np.square(samples, dtype=np.float64)) + 1e-20))


class TestResample:
    @pytest.mark.parametrize("from_hz", RATES_HZ)
    @pytest.mark.parametrize("to_hz", [16_000, 24_000, 48_000])
    def test_keeps_a_tone_of_1_khz_where_it_was(self, from_hz: int, to_hz: int) -> None:
        converted = resample(make_tone(1000, from_hz), from_hz, to_hz)

        expected = make_tone(1000, to_hz)
        assert len(converted) == len(expected)
        assert measure_db(middle(converted - expected)) < -90

    def test_keeps_what_both_rates_can_hold(self) -> None:
        at_48, at_16 = make_tone(500, 48_000), make_tone(500, 16_000)

        assert middle(resample(at_48, 48_000, 16_000)) == pytest.approx(middle(at_16), abs=1e-3)
        assert middle(resample(at_16, 16_000, 48_000)) == pytest.approx(middle(at_48), abs=1e-3)

    def test_keeps_speech_up_to_7_5_khz_at_16(self) -> None:
        converted = resample(make_tone(7500, 24_000), 24_000, 16_000)

        assert measure_db(middle(converted - make_tone(7500, 16_000))) < -60

    @pytest.mark.parametrize(("from_hz", "frequency_hz"), [(24_000, 10_000), (24_000, 8_600), (48_000, 12_000)])
    def test_removes_what_the_lower_rate_cannot_hold(self, from_hz: int, frequency_hz: int) -> None:
        high = make_tone(frequency_hz, from_hz)

        assert measure_db(middle(resample(high, from_hz, 16_000))) < -60

    @pytest.mark.parametrize("count", [0, 1, 10, 479, 16_001])
    def test_keeps_the_duration_of_any_number_of_samples(self, count: int) -> None:
        noise = np.random.default_rng(0).normal(0, 0.1, count).astype(np.float32)

        assert len(resample(noise, 16_000, 48_000)) == pytest.approx(3 * count, abs=1)

    def test_returns_the_samples_themselves_at_the_same_rate(self) -> None:
        samples = make_tone(440, 16_000)

        assert resample(samples, 16_000, 16_000) is samples
