"""Prefills the language model with the prompt of the next reply. Imports no Django, no gRPC."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from inference.interfaces import InferenceError, LanguageModel, Message
from inference.telemetry.context import forget_turn

logger = logging.getLogger(__name__)

#: Prefills whose times are remembered: a turn has a few.
MAX_TIMES = 16


class ReadAhead:
    """
    Runs one prefill at a time. Of the requests that come during one, only the last is kept: it supersedes the others.

    `start` makes a task that its caller's group owns.
    """

    def __init__(
        self,
        llm: LanguageModel,
        *,
        timeout_s: float,
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._llm = llm
        self._clock = clock
        self._reads_since: float | None = None
        #: When each was read, begin and end, since `take_times`.
        self._times: deque[tuple[float, float]] = deque(maxlen=MAX_TIMES)
        self._timeout_s = timeout_s
        self._start = start
        self._task: asyncio.Task[None] | None = None
        self._next: Callable[[], Sequence[Message]] | None = None

    def request(self, compose: Callable[[], Sequence[Message]]) -> None:
        """Read what `compose` returns, when its turn comes."""
        self._next = compose
        if self._task is None or self._task.done():
            self._task = self._start(self._run())

    def stop(self) -> asyncio.Task[None] | None:
        """Stop reading, and return the task that is ending, if any: the model is free once it has."""
        self._next = None
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            self._note_time()
        return task

    def _note_time(self) -> None:
        """Note the end of the prefill that is being made, if one is."""
        if self._reads_since is not None:
            self._times.append((self._reads_since, self._clock()))
            self._reads_since = None

    def take_times(self) -> list[tuple[float, float]]:
        """Return when the last MAX_TIMES prefills since the last call were made, begin and end; also stopped ones."""
        times = list(self._times)
        self._times.clear()
        return times

    async def _run(self) -> None:
        forget_turn()  # the end of a reply requests what the next one begins with
        while self._next is not None:
            compose, self._next = self._next, None
            self._reads_since = began_s = self._clock()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._llm.prefill(compose())
            except (InferenceError, TimeoutError) as error:
                logger.debug("could not read ahead: %s", error)
            finally:
                if self._reads_since == began_s:
                    self._note_time()
