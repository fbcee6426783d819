"""What the language model remembers of a conversation. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal
from uuid import UUID

from inference.interfaces import Message
from realtime.call.turns import PastTurn


class History:
    """The turns so far, oldest first. `max_messages` of them are given to the language model; 0: none."""

    def __init__(self, past: Sequence[PastTurn], *, max_messages: int) -> None:
        self._past = list(past)
        self._max_messages = max_messages

    def append(self, turn_id: UUID, role: Literal["user", "assistant"], text: str) -> None:
        self._past.append(PastTurn(turn_id, Message(role, text)))

    def read_messages(self) -> tuple[Message, ...]:
        return tuple(past.message for past in self._past[-self._max_messages :]) if self._max_messages else ()

    def find(self, turn_id: UUID) -> PastTurn | None:
        return next((past for past in self._past if past.turn_id == turn_id), None)

    def list_up_to(self, turn_id: UUID) -> list[PastTurn]:
        """Return the turns before a remembered one, and itself."""
        place = next(number for number, past in enumerate(self._past) if past.turn_id == turn_id)
        return self._past[: place + 1]

    def replace(self, past: Sequence[PastTurn]) -> None:
        self._past = list(past)
