from __future__ import annotations

import array

import pytest

from realtime.call.utterance import UtteranceMeter, has_speech_like
from tests.fakes import make_silence, make_tone


class TestSpeech:
    @pytest.mark.parametrize(
        ("newer", "is_speech"),
        [
            (b"", False),
            (make_silence(2000), False),
            (make_tone(180), False),
            (make_silence(500) + make_tone(200), True),
            # A hum 20 dB below the speech.
            (bytes(array.array("h", (sample // 10 for sample in array.array("h", make_tone(1000)))).tobytes()), False),
        ],
    )
    def test_is_as_loud_as_the_speech_before_it(self, newer: bytes, is_speech: bool) -> None:
        assert has_speech_like(newer, make_tone(600)) is is_speech


class TestUtteranceMeter:
    @pytest.mark.parametrize(
        ("pieces", "is_within"),
        [
            ([(100, 0, False)], True),
            ([(101, 0, False)], False),
            ([(60, 0, False), (40, 0, False)], True),
            ([(60, 0, False), (41, 0, False)], False),
            ([(1, 0, True)] * 3, True),
            ([(1, 0, True)] * 4, False),
            ([(1, 0, False)] * 4, True),
            ([(1, 1000, False)], True),
            ([(1, 1000.1, False)], False),
        ],
    )
    def test_holds_each_limit_at_its_edge(self, pieces: list[tuple[int, float, bool]], is_within: bool) -> None:
        meter = UtteranceMeter(max_bytes=100, max_chunks=3, max_ms=1000)

        results = [meter.add(size, audio_ms=ms, is_chunk=is_chunk) for size, ms, is_chunk in pieces]

        assert results[-1] is is_within
