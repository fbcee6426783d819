"""The calls that this process holds: who may begin one, whose place is taken over, and how all of them end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from enum import Enum
from typing import Protocol
from uuid import UUID

from realtime import messages

#: How long, at the end of the process, a sentence that is being spoken may still take.
FINISH_SENTENCE_S = 10.0


class LiveCall(Protocol):
    """A call as others see it."""

    user_id: int
    #: The conversation that it continues or has begun.
    conversation_id: UUID | None

    async def finish_sentence(self) -> None:
        """Return when the sentence that is being spoken is over, at once if there is none."""

    async def end(self, close_code: int) -> None:
        """Hang up and return when what was said is saved."""


class Entry(Enum):
    ADMITTED = "admitted"
    #: All places are taken.
    FULL = "full"
    #: All places that one person may have are theirs already.
    TOO_MANY = "too many"
    #: The process ends.
    DRAINING = "draining"


class Admission:
    """The calls of this process. A call that replaces another gets its place, in one step."""

    def __init__(self) -> None:
        self._calls: list[LiveCall] = []
        #: Those that have no place any more, and of which something is still to be saved.
        self._saving: list[LiveCall] = []
        self._is_draining = False

    @property
    def active(self) -> int:
        return len(self._calls)

    def find(self, *, user_id: int, conversation_id: UUID) -> LiveCall | None:
        """Return the person's call that holds this conversation."""
        for call in self._calls:
            if (call.user_id, call.conversation_id) == (user_id, conversation_id):
                return call
        return None

    def enter(self, call: LiveCall, *, limit: int, limit_per_person: int, replaced: LiveCall | None = None) -> Entry:
        """Take a place, if there is one, or that of `replaced`, which then has none any more."""
        if self._is_draining:
            return Entry.DRAINING
        others = [each for each in self._calls if each is not replaced]
        if len(others) >= limit:
            return Entry.FULL
        if sum(each.user_id == call.user_id for each in others) >= limit_per_person:
            return Entry.TOO_MANY
        self._calls = [*others, call]
        return Entry.ADMITTED

    def leave(self, call: LiveCall) -> None:
        """Give the place back. A call without one has nothing to give."""
        self._calls = [each for each in self._calls if each is not call]

    @contextlib.contextmanager
    def saving(self, call: LiveCall) -> Iterator[None]:
        """Have a drain wait for a call that has left and is being saved."""
        self._saving.append(call)
        try:
            yield
        finally:
            self._saving = [each for each in self._saving if each is not call]

    async def drain(self, *, finish_sentence_s: float = FINISH_SENTENCE_S) -> None:
        """Drain: admit no call any more, let sentences that are being spoken end, save the calls and end them."""
        self._is_draining = True

        async def finish(call: LiveCall) -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(finish_sentence_s):
                    await call.finish_sentence()
            await call.end(messages.CLOSE_RESTARTING)

        async with asyncio.TaskGroup() as group:
            for call in self._calls:
                group.create_task(finish(call))
            for call in self._saving:
                group.create_task(call.end(messages.CLOSE_RESTARTING))


admission = Admission()
