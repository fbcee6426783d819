from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import Any

import pytest

from realtime.call.events import FrameReceived
from tests.bench.replay import FRAMES, REQUIRED_MS, count_effects, judge, record_minute, replay


class TestReplay:
    def test_repeats_a_minute_of_a_call(self) -> None:
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

    def test_needs_no_event_loop_no_thread_and_no_clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        recorded = record_minute()

        def refuse(*arguments: Any, **fields: Any) -> None:
            raise AssertionError("a pure machine waits for nothing and reads no clock")

        with monkeypatch.context() as pure:
            pure.setattr(asyncio, "get_running_loop", refuse)
            pure.setattr(asyncio.events, "new_event_loop", refuse)
            pure.setattr(threading.Thread, "start", refuse)
            for clock in ("time", "monotonic", "perf_counter", "sleep"):
                pure.setattr(time, clock, refuse)
            effects = replay(recorded)

        assert effects == replay(recorded)


class TestJudge:
    """The bound is the benchmark's, not a test's: a test that is timed fails by what else the machine does."""

    def test_counts_the_best_run_and_fails_above_the_bound(self) -> None:
        assert judge([REQUIRED_MS - 0.1, 80.0, 90.0])[1] == 0

        verdict, status = judge([REQUIRED_MS + 0.1, 80.0, 90.0])
        assert status == 1
        assert "MORE THAN 10 ms" in verdict
