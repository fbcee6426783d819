from __future__ import annotations

import numpy as np
import pytest

from inference.audio.durations import compute_duration_s, count_bytes
from inference.audio.pcm import float_from_pcm, int16_from_float, pcm_from_float


class TestConversion:
    def test_gives_all_16_bits_back_unchanged(self) -> None:
        pcm = np.arange(-32768, 32768).astype("<i2").tobytes()

        assert pcm_from_float(float_from_pcm(pcm)) == pcm

    def test_spans_minus_one_to_one(self) -> None:
        samples = float_from_pcm(np.array([-32768, 0, 16384], "<i2").tobytes())

        assert samples.dtype == np.float32
        assert samples.tolist() == [-1.0, 0.0, 0.5]

    def test_clips_what_is_beyond_full_scale(self) -> None:
        assert int16_from_float(np.array([-1.5, 1.0, 1.5], np.float32)).tolist() == [-32768, 32767, 32767]

    def test_rounds_to_the_nearest_value(self) -> None:
        assert int16_from_float(np.array([0.6, -0.6, 1.4], np.float32) / 32768).tolist() == [1, -1, 1]

    def test_returns_samples_that_may_be_changed(self) -> None:
        samples = float_from_pcm(bytes(4))
        samples += 1

        assert samples.tolist() == [1, 1]

    def test_refuses_half_a_sample(self) -> None:
        with pytest.raises(ValueError, match="multiple"):
            float_from_pcm(b"123")


class TestDuration:
    def test_is_that_of_16_bits_a_sample(self) -> None:
        assert compute_duration_s(bytes(32_000), 16_000) == 1.0
        assert count_bytes(20, 16_000) == 640
        assert count_bytes(200, 24_000) == 9600

    def test_is_in_whole_samples(self) -> None:
        assert count_bytes(1, 22_050) == 44
