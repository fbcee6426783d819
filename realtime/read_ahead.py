"""Prefills the language model with the prompt of the next reply. Imports no Django, no gRPC."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from inference.interfaces import InferenceError, LanguageModel, Message

logger = logging.getLogger(__name__)


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
    ) -> None:
        self._llm = llm
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
        return task

    async def _run(self) -> None:
        while self._next is not None:
            compose, self._next = self._next, None
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._llm.prefill(compose())
            except (InferenceError, TimeoutError) as error:
                logger.debug("could not read ahead: %s", error)
