from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("onnxruntime")

from inference.engines.background_gate import BackgroundGate
from inference.engines.preemptible_onnx import run_preemptible
from inference.engines.priority_worker import Priority, Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("runs")
    yield worker
    worker.close()


class Runs:
    """Work as ONNX Runtime does it: until it is told to terminate, for which it has an exception of its own."""

    def __init__(self) -> None:
        self.options: list[Any] = []
        self.is_endless = True

    def __call__(self, options: Any) -> str:
        self.options.append(options)
        deadline = time.monotonic() + 10
        while self.is_endless and time.monotonic() < deadline:
            if options.terminate:
                raise RuntimeError("Exiting due to terminate flag being set to true.")
            time.sleep(0.001)
        return "done"

    async def have_begun(self) -> None:
        async with asyncio.timeout(5):
            while not self.options:  # noqa: ASYNC110 — counted in another thread
                await asyncio.sleep(0.001)


class TestRunInTurn:
    async def test_begins_again_after_it_gave_way(self, worker: Worker) -> None:
        gate, runs = BackgroundGate(), Runs()
        with gate.background_job() as work:
            running = asyncio.create_task(run_preemptible(worker, work, runs))
            await runs.have_begun()
            with gate.live_call(Priority.FIRST_CLAUSE) as live:
                # The thread is free for it.
                assert await asyncio.wait_for(run_preemptible(worker, live, lambda _: "live"), 5) == "live"
                assert not running.done()
            runs.is_endless = False

            assert await asyncio.wait_for(running, 5) == "done"

        assert len(runs.options) == 2

    async def test_stops_when_nobody_waits(self, worker: Worker) -> None:
        gate, runs = BackgroundGate(), Runs()
        with gate.live_call(Priority.CLAUSE) as work:
            running = asyncio.create_task(run_preemptible(worker, work, runs))
            await runs.have_begun()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

        assert await asyncio.wait_for(worker.run(lambda: "free"), 5) == "free"

    async def test_raises_what_goes_wrong(self, worker: Worker) -> None:
        def fail(_: Any) -> None:
            raise RuntimeError("no such input")

        gate = BackgroundGate()
        with gate.background_job() as work, pytest.raises(RuntimeError, match="no such input"):
            await run_preemptible(worker, work, fail)
