"""What is done with conversations."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.files.base import ContentFile
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from conversations import tasks
from conversations.models import Conversation, Speaker, Turn
from voices.models import Quality, VoiceProfile
from voices.services import mark_used

if TYPE_CHECKING:
    from django.contrib.auth.models import User

logger = logging.getLogger(__name__)


class TurnOfAnotherConversation(Exception):
    """A turn id was given that is a turn of another conversation already."""


def start_conversation(*, owner: User, title: str = "") -> Conversation:
    return Conversation.objects.create(owner=owner, title=title[: Conversation.TITLE_LENGTH])


def append_turn(
    *,
    conversation_id: uuid.UUID,
    turn_id: uuid.UUID,
    speaker: str,
    text: str,
    language: str,
    audio: bytes | None,
    audio_duration_ms: int,
    was_interrupted: bool,
    voice_profile_id: uuid.UUID | None,
    latency: Mapping[str, Any] | None,
    quality: str = "",
) -> Turn:
    """
    Keep a turn at the end of its conversation.

    `audio` is FLAC, or None. Saving a `turn_id` again changes nothing and returns the turn that is there. The first
    words of the user become the title of a conversation that has none. A voice that was deleted meanwhile is left out.
    `quality` is what an answer was spoken in; a fast one may be spoken anew later (AVATAR_BEAUTIFUL_LATER).

    Raises Conversation.DoesNotExist, and TurnOfAnotherConversation.
    """
    if kept := _kept_turn(turn_id, conversation_id):
        return kept
    turn = Turn(
        pk=turn_id,
        conversation=Conversation.objects.get(pk=conversation_id),
        speaker=Speaker(speaker),
        text=text,
        language=language,
        audio_duration_ms=audio_duration_ms,
        was_interrupted=was_interrupted,
        has_own_voice=voice_profile_id is not None,
        quality=Quality(quality) if quality else "",
        latency=dict(latency) if latency is not None else None,
    )
    if audio:
        _write_audio(turn, audio)
    try:
        return _place(turn, voice_profile_id=voice_profile_id)
    except BaseException:
        if turn.audio and not Turn.objects.filter(pk=turn_id).exists():
            turn.audio.delete(save=False)
        raise


def recent_messages(*, conversation_id: uuid.UUID, limit: int) -> list[tuple[str, str]]:
    """The last `limit` turns that have words, oldest first, as (speaker, text)."""
    turns = Turn.objects.filter(conversation_id=conversation_id).exclude(text="").order_by("-sequence", "pk")
    return list(reversed(turns.values_list("speaker", "text")[:limit]))


@transaction.atomic
def _place(turn: Turn, *, voice_profile_id: uuid.UUID | None) -> Turn:
    # The conversation's row is the queue for its next place. SQLite took the whole file's lock with BEGIN IMMEDIATE.
    conversation = Conversation.objects.select_for_update().get(pk=turn.conversation_id)
    if kept := _kept_turn(turn.pk, conversation.pk):
        return kept
    last = conversation.turns.aggregate(last=Max("sequence"))["last"]
    turn.sequence = 1 if last is None else last + 1
    turn.voice_profile = VoiceProfile.objects.filter(pk=voice_profile_id).first() if voice_profile_id else None
    turn.save(force_insert=True)
    if turn.voice_profile_id:
        mark_used(voice_profile_id=turn.voice_profile_id)
    if settings.AVATAR_BEAUTIFUL_LATER and turn.audio and turn.quality == Quality.FAST:
        tasks.render_in_high_quality.delay_on_commit(turn_id=str(turn.pk))
    conversation.last_turn_at = timezone.now()
    if not conversation.title and turn.speaker == Speaker.USER:
        conversation.title = _title_from(turn.text)
    conversation.save(update_fields=["last_turn_at", "title"])
    return turn


def _kept_turn(turn_id: uuid.UUID, conversation_id: uuid.UUID) -> Turn | None:
    turn = Turn.objects.filter(pk=turn_id).first()
    if turn is not None and turn.conversation_id != conversation_id:
        raise TurnOfAnotherConversation(f"turn {turn_id} is not of conversation {conversation_id}")
    return turn


def _write_audio(turn: Turn, audio: bytes) -> None:
    """Write the file before the row, outside of the transaction: a slow storage must not hold the database's lock."""
    name = turn.audio.field.generate_filename(turn, "turn.flac")
    # Left behind by a save that was killed between the file and the row.
    if turn.audio.storage.exists(name):
        logger.warning("replacing audio of turn %s, which had no row", turn.pk)
        turn.audio.storage.delete(name)
    turn.audio.save("turn.flac", ContentFile(audio), save=False)


def _title_from(text: str) -> str:
    words = " ".join(text.split())
    if len(words) <= Conversation.TITLE_LENGTH:
        return words
    return words[: Conversation.TITLE_LENGTH - 1].rstrip() + "…"
