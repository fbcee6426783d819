from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from inference.blocking import Job, ask


async def find_loop() -> int:
    return id(asyncio.get_running_loop())


class TestAsk:
    def test_uses_one_loop_for_all_threads(self) -> None:
        with ThreadPoolExecutor(4) as threads:
            loops = set(threads.map(lambda _: ask(find_loop(), timeout_s=5), range(8)))

        assert loops == {ask(find_loop(), timeout_s=5)}

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
            coroutine = find_loop()
            try:
                ask(coroutine, timeout_s=5)
            finally:
                coroutine.close()

        with pytest.raises(RuntimeError, match="own thread"):
            ask(ask_again(), timeout_s=5)

    def test_has_a_loop_of_its_own_in_a_forked_child(self) -> None:
        ask(find_loop(), timeout_s=5)

        child = os.fork()
        if not child:
            try:
                os._exit(0 if ask(asyncio.sleep(0, "done"), timeout_s=5) == "done" else 1)
            finally:
                os._exit(2)

        assert os.waitpid(child, 0)[1] == 0


class TestJob:
    def test_has_cleaned_up_when_it_is_cancelled(self) -> None:
        started, has_ended = threading.Event(), threading.Event()

        async def hang() -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                has_ended.set()

        job = Job(hang())
        assert started.wait(5)
        job.cancel()

        assert has_ended.is_set()
        with pytest.raises(asyncio.CancelledError):
            job.result(0)
