from __future__ import annotations

import numpy as np
import pytest

from inference.interfaces import InferenceError

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


class TestParseBlend:
    def test_reads_one_voice(self) -> None:
        assert kokoro.parse_blend("zf_xiaoxiao") == {"zf_xiaoxiao": 1.0}

    def test_reads_several(self) -> None:
        assert kokoro.parse_blend("a:0.5+b:0.3+a:0.2") == {"a": 0.7, "b": 0.3}

    @pytest.mark.parametrize(
        ("voice", "reason"),
        [
            ("a:0.6+b:0.6", "sum to 1"),
            ("a:0.5", "sum to 1"),
            ("a+b", "expected key:weight"),
            ("a:x+b:y", "expected key:weight"),
            ("a:1.5+b:-0.5", "above 0"),
            ("a:nan+b:1", "above 0"),
            ("a:inf+b:-inf", "above 0"),
        ],
    )
    def test_refuses_what_is_no_blend(self, voice: str, reason: str) -> None:
        with pytest.raises(InferenceError, match=reason):
            kokoro.parse_blend(voice)


class TestRun:
    def test_is_stopped_when_it_has_to_give_way(self) -> None:
        run = kokoro._Run()

        run.give_way()

        assert run.has_given_way
        assert run.options.terminate
