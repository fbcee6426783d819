from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Callable

import pytest

from inference.engines.priority_worker import Priority, Worker


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = Worker("test")
    yield worker
    await asyncio.to_thread(worker.close)


class Blocker:
    """Keeps the worker busy until it is told to go on."""

    def __init__(self, worker: Worker) -> None:
        self._begun = threading.Event()
        self._may_end = threading.Event()
        self._task = asyncio.create_task(worker.run(self._block))

    def _block(self) -> None:
        self._begun.set()
        assert self._may_end.wait(timeout=10)

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self._begun.wait, 10)

    async def end(self) -> None:
        self._may_end.set()
        await self._task


@pytest.fixture
async def blocker(worker: Worker) -> AsyncIterator[Blocker]:
    blocker = Blocker(worker)
    await blocker.has_begun()
    yield blocker
    await blocker.end()


class TestWorker:
    async def test_gives_the_result(self, worker: Worker) -> None:
        assert await worker.run(lambda: 6 * 7) == 42

    async def test_works_in_one_thread_of_its_own(self, worker: Worker) -> None:
        threads = {await worker.run(threading.get_ident) for _ in range(3)}

        assert len(threads) == 1
        assert threading.get_ident() not in threads

    async def test_does_the_urgent_first_and_equals_in_order(self, worker: Worker, blocker: Blocker) -> None:
        done: list[str] = []

        def note(name: str) -> Callable[[], None]:
            return lambda: done.append(name)

        waiting = [
            asyncio.create_task(worker.run(note(name), priority))
            for name, priority in (
                ("partial 1", Priority.PARTIAL),
                ("final 1", Priority.FINAL),
                ("partial 2", Priority.PARTIAL),
                ("final 2", Priority.FINAL),
            )
        ]
        await asyncio.sleep(0)
        await blocker.end()
        await asyncio.gather(*waiting)

        assert done == ["final 1", "final 2", "partial 1", "partial 2"]

    async def test_knows_whether_somebody_waits_with_something_as_urgent(
        self, worker: Worker, blocker: Blocker
    ) -> None:
        waiting = [
            asyncio.create_task(worker.run(lambda: None, priority)) for priority in (Priority.PARTIAL, Priority.FINAL)
        ]
        await asyncio.sleep(0)
        assert worker.has_waiting(Priority.FINAL)

        waiting[1].cancel()
        await asyncio.gather(waiting[1], return_exceptions=True)

        assert not worker.has_waiting(Priority.FINAL)
        assert worker.has_waiting(Priority.PARTIAL)
        await blocker.end()
        await waiting[0]

    async def test_never_runs_what_was_cancelled_before_its_turn(self, worker: Worker, blocker: Blocker) -> None:
        ran = threading.Event()
        waiting = asyncio.create_task(worker.run(ran.set))
        await asyncio.sleep(0)
        assert worker.has_work_waiting

        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await blocker.end()
        await worker.run(lambda: None)

        assert not ran.is_set()

    async def test_goes_on_when_a_caller_left_in_the_middle(self, worker: Worker) -> None:
        blocker = Blocker(worker)
        await blocker.has_begun()
        blocker._task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await blocker.end()

        assert await worker.run(lambda: "next") == "next"

    async def test_passes_errors_on_and_survives_them(self, worker: Worker) -> None:
        def fail() -> None:
            raise LookupError("no such thing")

        with pytest.raises(LookupError, match="no such thing"):
            await worker.run(fail)

        assert await worker.run(lambda: "next") == "next"

    async def test_refuses_work_once_closed(self, worker: Worker) -> None:
        await asyncio.to_thread(worker.close)

        with pytest.raises(RuntimeError, match="closed"):
            await worker.run(lambda: None)

    async def test_tells_those_who_wait_that_it_was_closed(self, worker: Worker) -> None:
        blocker = Blocker(worker)
        await blocker.has_begun()
        waiting = asyncio.create_task(worker.run(lambda: None))
        await asyncio.sleep(0)

        closing = asyncio.create_task(asyncio.to_thread(worker.close))

        with pytest.raises(RuntimeError, match="closed"):
            await asyncio.wait_for(waiting, timeout=5)
        await blocker.end()
        await closing

    async def test_can_be_closed_twice(self, worker: Worker) -> None:
        await asyncio.to_thread(worker.close)
        await asyncio.to_thread(worker.close)


class TestWorkerAcrossLoops:
    def test_survives_a_loop_that_closed_under_a_call(self) -> None:
        worker = Worker("test")
        begun, may_end = threading.Event(), threading.Event()

        def block() -> None:
            begun.set()
            may_end.wait(timeout=10)

        async def leave_in_the_middle() -> None:
            task = asyncio.create_task(worker.run(block))
            await asyncio.to_thread(begun.wait, 10)
            task.cancel()

        asyncio.run(leave_in_the_middle())
        may_end.set()

        assert asyncio.run(worker.run(lambda: "next")) == "next"
        worker.close()


class Voice:
    """Something that is not to be kept."""


async def test_holds_nothing_of_what_it_has_done(worker: Worker) -> None:
    given = Voice()
    made = await worker.run(lambda given=given: (given, Voice()))  # type: ignore[misc]
    held = [weakref.ref(each) for each in made]

    del given, made

    async with asyncio.timeout(10):
        while any(each() is not None for each in held):  # noqa: ASYNC110 — the thread has its last lines to do
            await asyncio.sleep(0.01)
