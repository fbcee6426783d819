from __future__ import annotations

from dataclasses import replace

import pytest

from inference.endpointing import HYSTERESIS, WINDOW_MS, Endpoint, Endpointer
from inference.interfaces import TranscriptionOptions

SPEECH = 0.9
SILENCE = 0.0
#: Windows that make at least 200 ms.
ONSET = 7
PAUSE = 7


@pytest.fixture
def endpointer() -> Endpointer:
    return Endpointer(TranscriptionOptions())


@pytest.fixture
def speaking_endpointer(endpointer: Endpointer) -> Endpointer:
    """Has heard exactly as much as makes speech."""
    feed(endpointer, SPEECH, ONSET)
    return endpointer


@pytest.fixture
def pausing_endpointer(speaking_endpointer: Endpointer) -> Endpointer:
    """Has heard speech and exactly as much silence as makes a pause."""
    feed(speaking_endpointer, SILENCE, PAUSE)
    return speaking_endpointer


def feed(endpointer: Endpointer, probability: float, windows: int) -> list[Endpoint]:
    changes = [endpointer.feed(probability) for _ in range(windows)]
    return [change for change in changes if change is not None]


def windows_until(endpointer: Endpointer, probability: float, expected: Endpoint, limit: int = 200) -> int:
    for count in range(1, limit + 1):
        if (change := endpointer.feed(probability)) is not None:
            assert change is expected
            return count
    raise AssertionError(f"{expected} did not come within {limit} windows")


class TestBeginning:
    def test_comes_after_200_ms_of_speech(self, endpointer: Endpointer) -> None:
        before = feed(endpointer, SPEECH, ONSET - 1)

        assert before == []
        assert endpointer.feed(SPEECH) is Endpoint.SPEECH_STARTED
        assert ONSET * WINDOW_MS >= 200

    def test_is_dated_back_to_the_first_sound(self, endpointer: Endpointer) -> None:
        feed(endpointer, SILENCE, 10)

        feed(endpointer, SPEECH, ONSET)

        assert endpointer.speech_start_ms == 10 * WINDOW_MS
        assert endpointer.speech_end_ms == (10 + ONSET) * WINDOW_MS

    def test_waits_as_long_as_it_is_told(self, endpointer: Endpointer) -> None:
        endpointer.options = TranscriptionOptions(min_speech_ms=500)

        assert windows_until(endpointer, SPEECH, Endpoint.SPEECH_STARTED) == 16

    def test_bridges_a_short_gap(self, endpointer: Endpointer) -> None:
        feed(endpointer, SPEECH, ONSET - 1)
        feed(endpointer, SILENCE, 3)

        assert endpointer.feed(SPEECH) is Endpoint.SPEECH_STARTED

    def test_is_not_made_of_clicks(self, endpointer: Endpointer) -> None:
        changes: list[Endpoint] = []
        for _ in range(50):
            changes += feed(endpointer, SPEECH, 2)
            changes += feed(endpointer, SILENCE, 8)

        assert changes == []
        assert not endpointer.is_in_utterance

    def test_forgets_a_click_long_ago(self, endpointer: Endpointer) -> None:
        feed(endpointer, SPEECH, 1)
        feed(endpointer, SILENCE, 100)

        feed(endpointer, SPEECH, ONSET)

        assert endpointer.speech_start_ms == 101 * WINDOW_MS

    def test_needs_the_full_probability(self, endpointer: Endpointer) -> None:
        just_below = endpointer.options.sensitivity - 0.01

        assert feed(endpointer, just_below, 100) == []


class TestPause:
    def test_begins_at_200_ms_of_silence(self, speaking_endpointer: Endpointer) -> None:
        assert windows_until(speaking_endpointer, SILENCE, Endpoint.PAUSE_BEGAN) * WINDOW_MS == 224

    def test_does_not_move_the_end_of_speech(self, pausing_endpointer: Endpointer) -> None:
        assert pausing_endpointer.speech_end_ms == ONSET * WINDOW_MS
        assert pausing_endpointer.silence_ms == PAUSE * WINDOW_MS

    def test_holds_on_at_a_lower_probability(self, speaking_endpointer: Endpointer) -> None:
        faint = speaking_endpointer.options.sensitivity - HYSTERESIS + 0.01

        assert feed(speaking_endpointer, faint, 100) == []

    def test_does_not_hold_on_below_that(self, speaking_endpointer: Endpointer) -> None:
        fainter = speaking_endpointer.options.sensitivity - HYSTERESIS - 0.01

        assert feed(speaking_endpointer, fainter, PAUSE) == [Endpoint.PAUSE_BEGAN]

    def test_is_taken_back_when_speech_goes_on(self, pausing_endpointer: Endpointer) -> None:
        assert feed(pausing_endpointer, SPEECH, 2) == [Endpoint.SPEECH_RESUMED]
        assert pausing_endpointer.speech_start_ms == 0
        assert pausing_endpointer.speech_end_ms == pausing_endpointer.position_ms

    def test_is_not_taken_back_by_a_click(self, pausing_endpointer: Endpointer) -> None:
        feed(pausing_endpointer, SPEECH, 1)

        assert feed(pausing_endpointer, SILENCE, 20) == [Endpoint.UTTERANCE_ENDED]

    def test_can_come_again(self, pausing_endpointer: Endpointer) -> None:
        feed(pausing_endpointer, SPEECH, 5)

        assert feed(pausing_endpointer, SILENCE, PAUSE) == [Endpoint.PAUSE_BEGAN]


class TestEnd:
    @pytest.mark.parametrize("pause_ms", [300, 600, 1500])
    def test_comes_after_the_pause(self, pause_ms: int) -> None:
        endpointer = Endpointer(TranscriptionOptions(pause_ms=pause_ms))
        feed(endpointer, SPEECH, ONSET)
        feed(endpointer, SILENCE, PAUSE)

        more = windows_until(endpointer, SILENCE, Endpoint.UTTERANCE_ENDED)

        assert pause_ms <= (PAUSE + more) * WINDOW_MS < pause_ms + WINDOW_MS

    @pytest.mark.parametrize("pause_ms", [0, 100, 200])
    def test_comes_right_after_a_pause_no_longer_than_the_shortest(self, pause_ms: int) -> None:
        endpointer = Endpointer(TranscriptionOptions(pause_ms=pause_ms))
        feed(endpointer, SPEECH, ONSET)

        assert feed(endpointer, SILENCE, PAUSE + 1) == [Endpoint.PAUSE_BEGAN, Endpoint.UTTERANCE_ENDED]

    def test_follows_a_pause_set_in_the_middle(self, pausing_endpointer: Endpointer) -> None:
        pausing_endpointer.options = replace(pausing_endpointer.options, pause_ms=1200)

        assert feed(pausing_endpointer, SILENCE, 30) == []
        assert feed(pausing_endpointer, SILENCE, 1) == [Endpoint.UTTERANCE_ENDED]

    def test_leaves_the_bounds_readable(self, pausing_endpointer: Endpointer) -> None:
        feed(pausing_endpointer, SILENCE, 20)

        assert not pausing_endpointer.is_in_utterance
        assert (pausing_endpointer.speech_start_ms, pausing_endpointer.speech_end_ms) == (0, ONSET * WINDOW_MS)

    def test_lets_the_next_utterance_begin(self, pausing_endpointer: Endpointer) -> None:
        feed(pausing_endpointer, SILENCE, 20)

        assert feed(pausing_endpointer, SPEECH, ONSET) == [Endpoint.SPEECH_STARTED]
        assert pausing_endpointer.speech_start_ms == (ONSET + PAUSE + 20) * WINDOW_MS

    def test_is_the_callers_without_endpointing(self) -> None:
        endpointer = Endpointer(TranscriptionOptions(endpointing=False))
        feed(endpointer, SPEECH, ONSET)

        changes = feed(endpointer, SILENCE, 1000)

        assert changes == [Endpoint.PAUSE_BEGAN]
        assert endpointer.is_in_utterance

        endpointer.reset()

        assert not endpointer.is_in_utterance
