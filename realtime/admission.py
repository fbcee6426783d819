"""The live calls of this process: admission, take-over of a place, drain. Imports no Django and no Channels."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from enum import Enum
from typing import Protocol
from uuid import UUID

from realtime import messages

#: How long a drain lets the clause that is being played take.
FINISH_SENTENCE_S = 10.0


class LiveCall(Protocol):
    """A call as other calls and the drain see it."""

    session_id: UUID
    user_id: int
    #: The conversation that it continues or has begun.
    conversation_id: UUID | None

    @property
    def is_conversation_unbegun(self) -> bool:
        """Whether its conversation was to begin with it, and no turn of it is kept yet."""

    async def finish_sentence(self) -> None:
        """Return when the sentence that is being played is over, at once if there is none."""

    async def end(self, close_code: int) -> None:
        """Hang up and return when the turns are saved."""


class Outcome(Enum):
    ADMITTED = "admitted"
    #: All places are taken: in the waiting list.
    WAITING = "waiting"
    #: The same, and so is every place in the waiting list.
    FULL = "full"
    #: The user has as many calls as one person may hold.
    TOO_MANY = "too many"
    #: The process is stopping.
    DRAINING = "draining"


class Admission:
    """The calls of this process. A call that replaces another gets its place, in one step."""

    def __init__(self) -> None:
        self._calls: list[LiveCall] = []
        #: Calls in the waiting list, in no order: the table of live calls has it.
        self._waiting: list[LiveCall] = []
        #: Calls without a place whose turns are still being saved.
        self._saving: list[LiveCall] = []
        self._is_draining = False

    @property
    def active(self) -> int:
        return len(self._calls)

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    def find(self, *, user_id: int, conversation_id: UUID) -> LiveCall | None:
        """Return the user's call that holds this conversation."""
        for call in self._calls:
            if (call.user_id, call.conversation_id) == (user_id, conversation_id):
                return call
        return None

    def enter(self, call: LiveCall, *, limit: int, limit_per_person: int, replaced: LiveCall | None = None) -> Outcome:
        """Take a free place, or that of `replaced`, which then has none."""
        if self._is_draining:
            return Outcome.DRAINING
        others = [each for each in self._calls if each is not replaced]
        if len(others) >= limit:
            return Outcome.FULL
        if sum(each.user_id == call.user_id for each in others) >= limit_per_person:
            return Outcome.TOO_MANY
        self._calls = [*others, call]
        return Outcome.ADMITTED

    def wait(self, call: LiveCall) -> Outcome:
        """Have a drain end a call that waits for a place: it has none here."""
        self.leave(call)
        if self._is_draining:
            return Outcome.DRAINING
        self._waiting = [*self._waiting, call]
        return Outcome.WAITING

    def seat(self, call: LiveCall) -> Outcome:
        """Give a call the place that the table of live calls has given it, whatever the limit of this process says."""
        self.leave(call)
        if self._is_draining:
            return Outcome.DRAINING
        self._calls = [*self._calls, call]
        return Outcome.ADMITTED

    def leave(self, call: LiveCall) -> None:
        """Give the place back, or stop waiting for one. Does nothing for a call that does neither."""
        self._calls = [each for each in self._calls if each is not call]
        self._waiting = [each for each in self._waiting if each is not call]

    @contextlib.contextmanager
    def saving(self, call: LiveCall) -> Iterator[None]:
        """Have a drain wait for a call that has left and is being saved."""
        self._saving.append(call)
        try:
            yield
        finally:
            self._saving = [each for each in self._saving if each is not call]

    async def drain(self, *, finish_sentence_s: float = FINISH_SENTENCE_S) -> None:
        """Admit no more calls, let the sentences that are being played end, then save and end every call."""
        self._is_draining = True

        async def finish(call: LiveCall) -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(finish_sentence_s):
                    await call.finish_sentence()
            await call.end(messages.CLOSE_RESTARTING)

        async with asyncio.TaskGroup() as group:
            for call in self._calls:
                group.create_task(finish(call))
            for call in (*self._waiting, *self._saving):
                group.create_task(call.end(messages.CLOSE_RESTARTING))


admission = Admission()
