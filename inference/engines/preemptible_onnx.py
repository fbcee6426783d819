"""Runs of ONNX Runtime that are stopped between two operators: when preempted by a live call, or cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import onnxruntime

from inference.engines.background_gate import GatedWork
from inference.engines.priority_worker import Worker

T = TypeVar("T")


class _Run:
    def __init__(self) -> None:
        self.options = onnxruntime.RunOptions()
        self.is_preempted = False

    def preempt(self) -> None:
        self.is_preempted = True
        self.options.terminate = True


async def run_preemptible(worker: Worker, work: GatedWork, function: Callable[[Any], T]) -> T:
    """
    Run the function in the worker's thread when the gate lets the work pass; again from the start after preemption.

    The function is given the options of its runs. Raises what it raises.
    """
    while True:
        await work.wait_for_turn()
        run = _Run()
        work.preempt = run.preempt
        try:
            return await worker.run(lambda run=run: function(run.options), work.priority)  # type: ignore[misc]
        except asyncio.CancelledError:
            run.options.terminate = True
            raise
        except Exception:  # ONNX Runtime reports a stopped run by an exception of its own
            if not run.is_preempted:
                raise
        finally:
            work.preempt = None
