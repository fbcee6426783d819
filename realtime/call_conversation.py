"""The conversation of one call, as database and storage have it: recorder, earlier turns, URLs of audio."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from channels.db import database_sync_to_async
from django.conf import settings
from django.urls import reverse

from conversations.call_store import resume_conversation
from conversations.queries import read_messages_up_to
from inference.interfaces import Message
from realtime.call.turns import PastTurn, RecordedTurn
from realtime.recorder import HURRIED_PATIENCE_S, Recorder, Trouble


class CallConversation:
    """
    Records a call's turns and reads earlier ones.

    A call that is not kept has no recorder: nothing of it is written anywhere. It may have an id nevertheless, of a
    conversation that it goes on with.
    """

    def __init__(
        self,
        conversation_id: UUID | None,
        *,
        is_kept: bool,
        begun_by: int | None,
        on_trouble: Callable[[Trouble], None],
    ) -> None:
        self._id = conversation_id
        self._is_new = begun_by is not None
        self._is_gone = False
        self._on_trouble = on_trouble
        self._recorder: Recorder | None = None
        if is_kept and conversation_id is not None:
            self._recorder = Recorder(conversation_id=conversation_id, on_trouble=self._report, begun_by=begun_by)

    @property
    def kept_id(self) -> UUID | None:
        """The conversation that the call's turns are kept in; None: nothing is kept."""
        return self._id if self._recorder is not None else None

    @property
    def is_unbegun(self) -> bool:
        """Whether the conversation was to begin with this call, and no turn of it is kept yet."""
        return self._is_new and not (self._recorder is not None and self._recorder.is_begun)

    def record(self, turn: RecordedTurn) -> None:
        """Hand a turn over to be kept. Never waits."""
        if self._recorder is not None:
            self._recorder.record(turn)

    async def find_past(self, turn_id: UUID) -> list[PastTurn] | None:
        """Return a turn of the user's and what came before it; None if there is no such turn in this conversation."""
        if self._id is None:
            return None
        said = await database_sync_to_async(read_messages_up_to)(
            conversation_id=self._id, turn_id=turn_id, limit=settings.AVATAR_LANGUAGE_MODEL_HISTORY_TURNS
        )
        return None if said is None else [_make_past_turn(*turn) for turn in said]

    def make_audio_url(self, turn_id: UUID) -> str | None:
        """Return where a turn's audio will be kept; None: it is not kept."""
        if self.kept_id is None or self._is_gone:
            return None
        return reverse("conversations_api:turn-audio", args=[self.kept_id, turn_id])

    def hurry(self) -> None:
        """Let `close` wait for the database only briefly: something waits for the end of the call."""
        if self._recorder is not None:
            self._recorder.limit_patience(HURRIED_PATIENCE_S)

    async def close(self) -> None:
        """Return when everything is in the database or the spool."""
        if self._recorder is not None:
            await self._recorder.close()

    def _report(self, trouble: Trouble) -> None:
        self._is_gone = self._is_gone or trouble is Trouble.GONE
        self._on_trouble(trouble)


async def read_history(conversation_id: UUID) -> list[PastTurn]:
    """Return what the language model remembers of a conversation, and note that it is gone on with."""
    said = await database_sync_to_async(resume_conversation)(
        conversation_id=conversation_id, limit=settings.AVATAR_LANGUAGE_MODEL_HISTORY_TURNS
    )
    return [_make_past_turn(*turn) for turn in said]


def _make_past_turn(turn_id: UUID, speaker: str, text: str) -> PastTurn:
    return PastTurn(turn_id, Message("user" if speaker == "user" else "assistant", text))
