from __future__ import annotations

import numpy as np
import pytest

kokoro = pytest.importorskip("inference.engines.kokoro")

SPEECH, SILENCE = 8.0, -9.0


def plan(energy_of_frames: list[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features and pitch that say which frame they are of."""
    count = len(energy_of_frames)
    numbers = np.arange(count, dtype=np.float32)
    features = np.broadcast_to(numbers, (1, 512, count))
    return features, np.repeat(numbers, 2)[None], np.repeat(np.array(energy_of_frames, np.float32), 2)[None]


class TestFindSpeech:
    def test_leaves_out_silence_but_for_a_margin(self) -> None:
        planned = plan([SILENCE] * 14 + [SPEECH] * 10 + [SILENCE] * 30)

        features, pitch, energy = kokoro.find_speech(*planned)

        assert features[0, 0].tolist() == list(range(10, 28))
        assert pitch[0, ::2].tolist() == list(range(10, 28))
        assert energy.shape == (1, 36)

    def test_keeps_silence_inside(self) -> None:
        planned = plan([SPEECH] * 3 + [SILENCE] * 40 + [SPEECH] * 3)

        assert kokoro.find_speech(*planned)[0].shape == (1, 512, 46)

    def test_keeps_a_sound_of_half_a_frame(self) -> None:
        features, pitch, energy = plan([SILENCE] * 20)
        energy[0, 21] = SPEECH

        assert kokoro.find_speech(features, pitch, energy)[0][0, 0].tolist() == list(range(6, 15))

    def test_finds_nothing_in_silence(self) -> None:
        assert kokoro.find_speech(*plan([SILENCE] * 20))[0].shape == (1, 512, 0)
