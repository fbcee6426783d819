from __future__ import annotations

import asyncio
import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from avatar_site.lib.inference_client import STALLED_AFTER_S, LoopTask, ask, run_with_heartbeat
from inference.offline import EngineSilent


async def get_loop() -> int:
    return id(asyncio.get_running_loop())


class TestAsk:
    def test_uses_one_loop_for_all_threads(self) -> None:
        with ThreadPoolExecutor(4) as threads:
            loops = set(threads.map(lambda _: ask(get_loop(), timeout_s=5), range(8)))

        assert loops == {ask(get_loop(), timeout_s=5)}

    def test_raises_what_the_coroutine_raises(self) -> None:
        async def fail() -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            ask(fail(), timeout_s=5)

    def test_ends_what_hangs_at_its_deadline(self) -> None:
        has_ended = threading.Event()

        async def hang() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                has_ended.set()

        with pytest.raises(TimeoutError):
            ask(hang(), timeout_s=0.01)
        assert has_ended.is_set()

    def test_refuses_to_wait_in_the_loop_itself(self) -> None:
        async def ask_again() -> None:
            coroutine = get_loop()
            try:
                ask(coroutine, timeout_s=5)
            finally:
                coroutine.close()

        with pytest.raises(RuntimeError, match="own thread"):
            ask(ask_again(), timeout_s=5)

    def test_has_a_loop_of_its_own_in_a_forked_child(self) -> None:
        ask(get_loop(), timeout_s=5)

        child = os.fork()
        if not child:
            try:
                os._exit(0 if ask(asyncio.sleep(0, "done"), timeout_s=5) == "done" else 1)
            finally:
                os._exit(2)

        assert os.waitpid(child, 0)[1] == 0


class TestLoopTask:
    def test_has_cleaned_up_when_it_is_cancelled(self) -> None:
        started, has_ended = threading.Event(), threading.Event()

        async def hang() -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                has_ended.set()

        job = LoopTask(hang())
        assert started.wait(5)
        job.cancel()

        assert has_ended.is_set()
        with pytest.raises(asyncio.CancelledError):
            job.result(0)


class TestRunWithHeartbeat:
    def test_takes_reports_in_the_callers_thread(self) -> None:
        taken: list[int] = []

        async def work(report: Any) -> str:
            for number in range(3):
                report(number)
            return "done"

        assert run_with_heartbeat(work, on_report=taken.append, on_wait=lambda: None) == "done"
        assert taken == [0, 1, 2]

    def test_renews_the_lease_only_while_there_is_progress(self) -> None:
        renewed: list[bool] = []
        was_cancelled: list[bool] = []
        has_begun = threading.Event()

        async def hang(report: Any) -> None:
            has_begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                was_cancelled.append(True)
                raise

        # It looks at the clock at the start and after each wait. Work that is cancelled before it begins never learns.
        seconds = itertools.count(0.0, STALLED_AFTER_S / 3)

        def read_clock() -> float:
            assert has_begun.wait(30)
            return next(seconds)

        with pytest.raises(EngineSilent):
            run_with_heartbeat(
                hang,
                on_report=lambda report: None,
                on_wait=lambda: renewed.append(True),
                wait_s=0.001,
                clock=read_clock,
            )

        assert len(renewed) == 3
        assert was_cancelled == [True]
