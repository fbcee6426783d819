from __future__ import annotations

from collections import Counter

from realtime.call.events import FrameReceived
from tests.bench.replay import FRAMES, count_effects, record_minute, replay


class TestReplay:
    def test_repeats_a_minute_of_a_call_without_an_event_loop(self) -> None:
        recorded = record_minute()

        effects = count_effects(replay(recorded))

        assert Counter(type(event) for _, event in recorded)[FrameReceived] == FRAMES
        assert effects["FeedAudio"] == FRAMES
        # Six turns with two speculations each, the first of which is dropped; one reply is interrupted.
        assert effects["CommitReply"] == 6
        assert effects["StartReply"] == 12
        assert effects["CancelReply"] == 6 + 1
        assert effects["ReportPlayback"] > 100

    def test_is_the_same_each_time(self) -> None:
        recorded = record_minute()

        assert replay(recorded) == replay(recorded)
