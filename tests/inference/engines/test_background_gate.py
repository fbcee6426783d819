from __future__ import annotations

import asyncio

import pytest

from inference.engines.background_gate import BackgroundGate
from inference.engines.priority_worker import Priority
from inference.interfaces import SynthesisOptions


@pytest.mark.virtual_clock
class TestBackgroundGate:
    async def test_holds_background_jobs_back_while_a_call_is_live(self) -> None:
        gate = BackgroundGate()
        with gate.background_job() as job:
            with gate.live_call(), gate.live_call():
                waiting = asyncio.create_task(job.wait_for_turn())
                await asyncio.sleep(0)
                assert not waiting.done()
            await asyncio.wait_for(waiting, 5)

    async def test_lets_live_calls_pass_at_once(self) -> None:
        gate = BackgroundGate()
        with gate.background_job(), gate.live_call(), gate.live_call() as job:
            await asyncio.wait_for(job.wait_for_turn(), 5)

    async def test_preempts_background_jobs_only_when_a_call_begins(self) -> None:
        gate, stopped = BackgroundGate(), []
        with (
            gate.background_job() as job,
            gate.background_job(),
            gate.live_call() as other,
        ):
            job.preempt = lambda: stopped.append("background")
            other.preempt = lambda: stopped.append("live")
            with gate.live_call():
                pass

        assert stopped == ["background"]

    async def test_opens_after_a_pause_without_live_calls(self) -> None:
        gate = BackgroundGate(pause_s=2.0)
        loop = asyncio.get_running_loop()
        with gate.background_job() as job:
            with gate.live_call():
                waiting = asyncio.create_task(job.wait_for_turn())
            await asyncio.sleep(1.9)
            with gate.live_call():
                pass
            ended_at = loop.time()
            await asyncio.wait_for(waiting, 5)

        # The pause began again with the second call.
        assert loop.time() - ended_at == pytest.approx(2.0, abs=0.01)

    async def test_bounds_how_long_a_job_waits(self) -> None:
        gate, stopped = BackgroundGate(max_wait_s=60.0), []
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        with gate.background_job() as job, gate.live_call():
            await job.wait_for_turn()
            assert loop.time() - began_at == pytest.approx(60.0, abs=0.01)
            job.preempt = lambda: stopped.append("overdue")
            with gate.live_call():
                await job.wait_for_turn()

        assert loop.time() - began_at == pytest.approx(60.0, abs=0.01)
        assert stopped == []

    async def test_counts_the_whole_wait_of_a_job(self) -> None:
        gate = BackgroundGate(max_wait_s=60.0)
        loop = asyncio.get_running_loop()
        with gate.background_job() as job:
            await asyncio.sleep(60)
            await job.wait_for_turn()
            # It passed at once: the first live call that comes then is the first that it waits for.
            assert not job.is_overdue
            began_at = loop.time()
            with gate.live_call():
                await job.wait_for_turn()

            assert job.is_overdue
            assert loop.time() - began_at < 0.01

    async def test_forgets_calls_and_jobs_that_ended(self) -> None:
        gate = BackgroundGate()
        with pytest.raises(ZeroDivisionError), gate.live_call():
            _ = 1 / 0

        with gate.background_job() as job:
            await asyncio.wait_for(job.wait_for_turn(), 5)
        assert not gate._background


class TestPriority:
    def test_is_that_of_first_clauses_before_others_and_both_before_the_background(self) -> None:
        first, later, background = (
            Priority.of(options)
            for options in (
                SynthesisOptions(),
                SynthesisOptions(is_first=False),
                SynthesisOptions(is_background=True),
            )
        )

        assert first < later < background
