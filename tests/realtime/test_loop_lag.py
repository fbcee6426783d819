import asyncio
import time

from avatar_site.lib.metrics import LOOP_LAG_SECONDS, REGISTRY
from realtime.loop_lag import GAUGE_READINGS, INTERVAL_S, LoopLag

LIMIT_S = 0.1


class TestLoopLag:
    def test_is_too_long_after_three_readings_in_a_row(self) -> None:
        lag = LoopLag()

        lag.note(LIMIT_S * 2)
        lag.note(LIMIT_S * 2)
        assert not lag.exceeds(LIMIT_S)
        lag.note(LIMIT_S * 2)

        assert lag.exceeds(LIMIT_S)

    def test_forgives_a_single_long_step_and_ends_with_the_first_short_one(self) -> None:
        lag = LoopLag()

        for late_s in (0.001, 5.0, 0.001):
            lag.note(late_s)
        assert not lag.exceeds(LIMIT_S)
        for late_s in (0.2, 0.2, 0.2, 0.0):
            lag.note(late_s)

        assert not lag.exceeds(LIMIT_S)

    def test_shows_the_worst_of_the_last_seconds(self) -> None:
        lag = LoopLag()

        lag.note(0.4)
        for _ in range(GAUGE_READINGS - 1):
            lag.note(0.01)
        assert REGISTRY.get_sample_value("avatar_event_loop_lag_seconds") == 0.4
        lag.note(0.01)

        assert lag.worst_s == 0.01
        LOOP_LAG_SECONDS.set(0)

    async def test_measures_a_loop_that_is_blocked(self) -> None:
        lag = LoopLag()
        running = asyncio.create_task(lag.run())
        await asyncio.sleep(0)

        blocked_until = time.monotonic() + INTERVAL_S + 0.15
        while time.monotonic() < blocked_until:
            pass  # as a handler that computes
        for _ in range(10):  # its timer is due
            await asyncio.sleep(0)
        worst_s = lag.worst_s
        running.cancel()
        await asyncio.wait([running])

        assert worst_s > 0.1
        assert lag.worst_s == 0
        LOOP_LAG_SECONDS.set(0)
