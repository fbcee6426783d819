from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inference.interfaces import SynthesisOptions

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

        features, pitch, energy = kokoro.crop_to_speech(*planned)

        assert features[0, 0].tolist() == list(range(10, 28))
        assert pitch[0, ::2].tolist() == list(range(10, 28))
        assert energy.shape == (1, 36)

    def test_keeps_silence_inside(self) -> None:
        planned = plan([SPEECH] * 3 + [SILENCE] * 40 + [SPEECH] * 3)

        assert kokoro.crop_to_speech(*planned)[0].shape == (1, 512, 46)

    def test_keeps_a_sound_of_half_a_frame(self) -> None:
        features, pitch, energy = plan([SILENCE] * 20)
        energy[0, 21] = SPEECH

        assert kokoro.crop_to_speech(features, pitch, energy)[0][0, 0].tolist() == list(range(6, 15))

    def test_finds_nothing_in_silence(self) -> None:
        assert kokoro.crop_to_speech(*plan([SILENCE] * 20))[0].shape == (1, 512, 0)


class TestFindStyles:
    """Whatever a voice was matched for, a reply in it is spoken."""

    @pytest.fixture
    def engine(self) -> Any:
        made = object.__new__(kokoro.Kokoro)  # without its half gigabyte
        made._styles = {key: np.full((510, 256), value, np.float32) for key, value in (("zf", 1), ("zm", 2), ("af", 5))}
        return made

    @pytest.mark.parametrize(
        ("voice", "value"),
        [("", 1), ("zm", 2), ("zf:0.5+zm:0.5", 1.5), ("basic_zh", 1), ("a:0.5+b:0.5", 1), ("zm:0.2+a:0.6+af:0.2", 3.5)],
    )
    def test_takes_what_it_has_of_a_voice(self, engine: Any, voice: str, value: float) -> None:
        styles = engine._compose_styles(SynthesisOptions(voice=voice), "zf")

        assert styles.shape == (510, 256)
        assert styles == pytest.approx(np.full((510, 256), value))

    def test_takes_a_style_whatever_the_voice(self, engine: Any) -> None:
        fitted = np.full(256, 7, "<f4").tobytes()

        styles = engine._compose_styles(SynthesisOptions(voice="nobody", style=fitted), "zf")

        assert styles[60] == pytest.approx(np.full(256, 7))
