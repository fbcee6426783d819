from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from voices.asking import EngineSilent
from voices.engines import STALLED_AFTER_S, run_beside


class TestRunBeside:
    def test_takes_reports_in_the_callers_thread(self) -> None:
        taken: list[int] = []

        async def work(report: Any) -> str:
            for number in range(3):
                report(number)
            return "done"

        assert run_beside(work, on_report=taken.append, on_wait=lambda: None) == "done"
        assert taken == [0, 1, 2]

    def test_renews_the_lease_only_while_there_is_progress(self) -> None:
        renewed: list[bool] = []
        was_cancelled: list[bool] = []

        async def hang(report: Any) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                was_cancelled.append(True)
                raise

        # It looks at the clock at the start and after each wait.
        seconds = itertools.count(0.0, STALLED_AFTER_S / 3)
        with pytest.raises(EngineSilent):
            run_beside(
                hang,
                on_report=lambda report: None,
                on_wait=lambda: renewed.append(True),
                wait_s=0.001,
                clock=lambda: next(seconds),
            )

        assert len(renewed) == 3
        assert was_cancelled == [True]
