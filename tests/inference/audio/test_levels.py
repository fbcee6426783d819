from __future__ import annotations

import numpy as np
import pytest

from inference.audio.levels import FLOOR_DB, amplitude_from_db, measure_levels_db, measure_rms


class TestRms:
    def test_of_a_tone_is_its_amplitude_by_the_root_of_two(self) -> None:
        tone = np.sin(2 * np.pi * np.arange(16_000) / 16)

        assert measure_rms(0.5 * tone) == pytest.approx(0.5 / np.sqrt(2))

    def test_of_whole_numbers_does_not_overflow(self) -> None:
        assert measure_rms(np.array([-32768, 32767], np.int16)) == pytest.approx(32767.5)

    def test_of_nothing_is_nothing(self) -> None:
        assert measure_rms(np.zeros(0, np.float32)) == 0


class TestLevels:
    def test_are_decibels_of_full_scale_per_20_ms(self) -> None:
        tone = np.sin(2 * np.pi * 100 * np.arange(16_000) / 16_000)
        loudness = np.repeat([1.0, amplitude_from_db(-20), 0.0], [4800, 4800, 6400])

        levels = measure_levels_db((tone * loudness).astype(np.float32), 16_000)

        assert levels == pytest.approx([-3.01] * 15 + [-23.01] * 15 + [FLOOR_DB] * 20, abs=0.01)

    def test_leave_out_an_offset(self) -> None:
        assert measure_levels_db(np.full(3200, 0.5, np.float32), 16_000).tolist() == [FLOOR_DB] * 10

    def test_are_those_of_whole_frames(self) -> None:
        assert len(measure_levels_db(np.zeros(959, np.float32), 16_000)) == 2
