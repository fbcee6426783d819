"""Runs of ONNX Runtime that are stopped between two operators, for somebody who comes or because nobody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import onnxruntime

from inference.engines.giving_way import Place, Queue
from inference.engines.worker import Worker

T = TypeVar("T")


class _Run:
    def __init__(self) -> None:
        self.options = onnxruntime.RunOptions()
        self.has_given_way = False

    def give_way(self) -> None:
        self.has_given_way = True
        self.options.terminate = True


async def run_in_turn(worker: Worker, queue: Queue, place: Place, work: Callable[[Any], T]) -> T:
    """
    Do the work in the worker's thread when it is this place's turn; from the beginning again when it had to give way.

    `work` is given the options of its runs. Raises what it raises.
    """
    while True:
        await queue.wait_for_turn(place)
        run = _Run()
        place.give_way = run.give_way
        try:
            return await worker.run(lambda run=run: work(run.options), place.urgency)  # type: ignore[misc]
        except asyncio.CancelledError:
            run.options.terminate = True
            raise
        except Exception:  # ONNX Runtime tells of a run that was stopped by one of its own
            if not run.has_given_way:
                raise
        finally:
            place.give_way = None
