"""
`make bench-telemetry`: what metrics and traces cost a turn, and what a scrape costs.

Asks typed questions of scripted engines that answer at once, in one process, and takes the modes by turns, so that a
busy machine slows all of them alike: without telemetry (its functions replaced by nothing), with metrics, and with
traces as well, sent to a receiver in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from unittest import mock

from avatar_site.lib import metrics
from inference.telemetry import tracing
from inference.telemetry.metrics import EngineMetrics
from realtime import messages
from realtime.call_metrics import CallMeter
from tests.fakes import FakeInference, make_inference, open_call
from tests.otlp import receive_traces

REPLY = "一二三四五，六七八九十。甲乙丙丁戊，己庚辛壬癸。"
ROUNDS = 60
TURNS_A_ROUND = 5


@contextmanager
def without_telemetry() -> Iterator[None]:
    # No mock in its place: calling one takes longer than what it stands for.
    with mock.patch.object(CallMeter, "note", new=_do_nothing), mock.patch.object(metrics, "observe_gap", _do_nothing):
        yield


def _do_nothing(*_: object) -> None: ...


@contextmanager
def with_metrics() -> Iterator[None]:
    yield


@contextmanager
def with_traces() -> Iterator[None]:
    with ExitStack() as stack:
        address, _ = stack.enter_context(receive_traces())
        stack.enter_context(mock.patch.dict(os.environ, {tracing.ENDPOINT: address}))
        tracing.configure("bench")
        stack.callback(tracing.shut_down)
        yield


MODES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "without": without_telemetry,
    "metrics": with_metrics,
    "metrics and traces": with_traces,
}


async def ask(count: int) -> tuple[list[float], float]:
    """Return the milliseconds from each question to the end of its answer, and of processor a turn."""
    taken: list[float] = []
    inference = make_inference(replies=[REPLY] * count, ms_per_character=1)
    async with open_call(inference) as call:
        began_cpu = time.process_time()
        for number in range(1, count + 1):
            began = time.perf_counter()
            call.send(messages.TextMessage(text="你好"))
            await call.wait_for(messages.TurnEnd, count=number)
            taken.append((time.perf_counter() - began) * 1000)
            await call.wait_until_listening(number)
        return taken, (time.process_time() - began_cpu) * 1000 / count


def measure_scrape() -> tuple[float, float]:
    """Return the milliseconds that this process's own metrics and those of the inference process take to write."""
    from prometheus_client import generate_latest

    status = asyncio.run(FakeInference().status())
    engines = EngineMetrics()

    def time_ms(work: Callable[[], object]) -> float:
        began = time.perf_counter()
        for _ in range(100):
            work()
        return (time.perf_counter() - began) * 10

    return time_ms(lambda: generate_latest(metrics.REGISTRY)), time_ms(lambda: engines.render(status))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    taken: dict[str, list[float]] = {name: [] for name in MODES}
    cpu: dict[str, list[float]] = {name: [] for name in MODES}
    asyncio.run(ask(TURNS_A_ROUND))  # the first is slower
    for _ in range(rounds):
        for name, mode in MODES.items():
            with mode():
                turns, cpu_ms = asyncio.run(ask(TURNS_A_ROUND))
            taken[name] += turns
            cpu[name].append(cpu_ms)
    print(f"{rounds * TURNS_A_ROUND} turns in each mode; load {os.getloadavg()[0]:.1f}")
    print(f"{'':20}{'median':>10}{'P95':>10}{'processor':>12}   ms a turn")
    for name in MODES:
        p95 = statistics.quantiles(taken[name], n=20)[-1]
        print(f"{name:20}{statistics.median(taken[name]):10.2f}{p95:10.2f}{statistics.median(cpu[name]):12.2f}")
    own_ms, engines_ms = measure_scrape()
    print(f"\nscrape: {own_ms:.2f} ms of the web process's counters, {engines_ms:.2f} ms of the engines'")
    return 0


if __name__ == "__main__":
    sys.exit(main())
