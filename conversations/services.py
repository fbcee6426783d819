"""What is done with conversations."""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import Count, Max, Sum
from django.utils import timezone

from avatar_site.lib import sqlite_erasure
from avatar_site.lib.handover import delay_on_commit
from avatar_site.lib.stored_files import write_file
from avatar_site.lib.text import strip_unseen
from conversations import retention, tasks
from conversations.encode import suffix_of
from conversations.models import DELETED_VOICE, Conversation, RetentionChoice, Speaker, Turn, TurnSearch, make_title
from conversations.search import index_text
from voices.models import Quality, VoiceProfile
from voices.services import mark_used

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from conversations.models import ConversationQuerySet

logger = logging.getLogger(__name__)


#: Its lines in the Markdown and in the JSON, and what a ZIP says about its audio file, as measured.
EXPORTED_BYTES_PER_TURN = 1_000


class TurnOfAnotherConversation(Exception):
    """A turn id was given that is a turn of another conversation already."""


class NotCorrectable(Exception):
    """Only what the user said can be corrected, and only while it is a part of the conversation."""


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
    said_at: dt.datetime | None = None,
    begun_by: int | None = None,
) -> Turn:
    """
    Keep a turn at the end of its conversation, or finish the one that `begin_turn` began.

    `begun_by` is who begins the conversation with this turn, if it is the first: both rows are made in one transaction.
    Without it the conversation has to be there already; one that was deleted is not made again.

    `audio` is Ogg/Opus or FLAC, or None. Saving a `turn_id` again changes nothing and returns the turn that is there.
    The first words of the user become the title of a conversation that has none. A voice deleted meanwhile is left out.
    `quality` is what an answer was spoken in; a fast one may be spoken anew later (AVATAR_BEAUTIFUL_LATER).
    `said_at` dates a turn that is saved late; without it, it is dated now.

    Raises Conversation.DoesNotExist (also when `begun_by` is gone), and TurnOfAnotherConversation.
    """
    kept = _kept_turn(turn_id, conversation_id)
    if kept is not None and not kept.is_in_progress:
        return kept
    turn = Turn(
        pk=turn_id,
        conversation=_find_or_draft(conversation_id, begun_by),
        speaker=Speaker(speaker),
        text=text,
        language=language,
        audio_duration_ms=audio_duration_ms,
        was_interrupted=was_interrupted,
        latency=dict(latency) if latency is not None else None,
        quality=Quality(quality) if quality else "",
        audio_bytes=len(audio or b""),
    )
    if audio:
        _write_audio(turn, audio)
    try:
        placed = _place(turn, voice_profile_id=voice_profile_id, said_at=said_at, begun_by=begun_by)
    except BaseException:
        if turn.audio and not Turn.objects.filter(pk=turn_id, audio=turn.audio_name).exists():
            turn.audio.delete(save=False)
        raise
    return placed


def begin_turn(
    *,
    conversation_id: uuid.UUID,
    turn_id: uuid.UUID,
    text: str,
    language: str,
    voice_profile_id: uuid.UUID | None,
    said_at: dt.datetime | None = None,
    begun_by: int | None = None,
) -> Turn:
    """
    Keep the words of a reply that is being spoken; called again, those that it has come to since.

    Until `append_turn` finishes it, it reads as interrupted: what a web process that is killed leaves behind is true.
    A turn that is finished stays as it is. Raises as `append_turn` does.
    """
    kept = _kept_turn(turn_id, conversation_id)
    if kept is not None and not kept.is_in_progress:
        return kept
    turn = Turn(
        pk=turn_id,
        conversation=_find_or_draft(conversation_id, begun_by),
        speaker=Speaker.AVATAR,
        text=text,
        language=language,
        was_interrupted=True,
        is_in_progress=True,
    )
    return _place(turn, voice_profile_id=voice_profile_id, said_at=said_at, begun_by=begun_by)


def drop_turn(*, conversation_id: uuid.UUID, turn_id: uuid.UUID) -> None:
    """
    Take back a turn that was begun and of which nothing was heard. A finished one, and none, is no error.

    The nightly retention run clears its words out of the search index: their deletion was not requested.
    """
    with transaction.atomic():
        begun = Turn.objects.filter(pk=turn_id, conversation=conversation_id, is_in_progress=True)
        TurnSearch.objects.filter(turn__in=list(begun)).delete()
        begun.delete()


@transaction.atomic
def correct_turn(*, conversation_id: uuid.UUID, turn_id: uuid.UUID, text: str, supersede: bool) -> Turn:
    """
    Put what was meant in the place of what was understood, which stays as `heard_text`.

    `supersede`: a new answer follows, so that everything after this turn is no longer a part of the conversation. Doing
    it twice changes nothing more. Raises Conversation.DoesNotExist, Turn.DoesNotExist, NotCorrectable.
    """
    conversation = Conversation.objects.select_for_update().get(pk=conversation_id)
    turn = conversation.turns.get(pk=turn_id)
    if not turn.can_be_corrected:
        raise NotCorrectable(f"turn {turn_id}")
    heard = turn.heard_text or turn.text
    if text != turn.text:
        if turn.heard_text:
            # An earlier correction goes; what had been heard stays.
            sqlite_erasure.erase_on_commit()
        if conversation.title == make_title(turn.text):
            conversation.title = make_title(text)
            conversation.save(update_fields=["title"])
        is_as_heard = text == heard
        turn.text = text
        turn.heard_text = "" if is_as_heard else heard
        turn.corrected_at = None if is_as_heard else timezone.now()
        turn.save(update_fields=["text", "heard_text", "corrected_at"])
        _index(turn, owner_id=conversation.owner_id)
    if supersede:
        conversation.turns.filter(sequence__gt=turn.sequence).update(is_superseded=True)
    return turn


def change_conversation(
    *, conversation: Conversation, title: str | None = None, is_pinned: bool | None = None
) -> Conversation:
    """
    Change what is given. Writes nothing but that: a call may be adding turns.

    An empty title is nobody's wish for none: it becomes the user's first words again.
    """
    changed = []
    if title is not None:
        conversation.title = title or conversation.find_title()
        changed.append("title")
    if is_pinned is not None:
        conversation.is_pinned = is_pinned
        changed.append("is_pinned")
    conversation.save(update_fields=changed)
    return conversation


def estimate_size(*, conversations: ConversationQuerySet) -> int:
    """Return about how many bytes an export takes: its audio, and what is written about a turn."""
    turns = Turn.objects.filter(conversation__in=conversations.order_by().values("pk"))
    figures = turns.aggregate(audio=Sum("audio_bytes"), turns=Count("pk"))
    return (figures["audio"] or 0) + EXPORTED_BYTES_PER_TURN * figures["turns"]


class LongerThanSite(Exception):
    """Somebody wants theirs kept longer than the site keeps anything. `field` says what, `days` the most."""

    def __init__(self, field: str, days: int) -> None:
        super().__init__(f"{field}: at most {days}")
        self.field = field
        self.days = days


def choose_retention(*, user: User, audio_days: int | None, text_days: int | None) -> None:
    """Keep a person's own limits, in days; None is the site's. Raises LongerThanSite."""
    site = retention.read_site_limits()
    for name, wanted, most in (
        ("audio_days", audio_days, site.audio_days),
        ("text_days", text_days, site.text_days),
    ):
        if wanted is not None and most is not None and wanted > most:
            raise LongerThanSite(name, most)
    RetentionChoice.objects.update_or_create(user=user, defaults={"audio_days": audio_days, "text_days": text_days})


def describe_retention(*, user: User) -> dict[str, Any]:
    """A person's own limits, the site's, and what comes of both."""
    chosen = RetentionChoice.objects.filter(user=user).first()
    return {
        "audio_days": chosen.audio_days if chosen else None,
        "text_days": chosen.text_days if chosen else None,
        "site": retention.read_site_limits(),
        "effective": retention.find_limits(user),
    }


def _find_or_draft(conversation_id: uuid.UUID, begun_by: int | None) -> Conversation:
    """Return the conversation, or one that is not saved yet. Raises Conversation.DoesNotExist."""
    if begun_by is None:
        return Conversation.objects.get(pk=conversation_id)
    found = Conversation.objects.filter(pk=conversation_id).first()
    if found is None and not get_user_model().objects.filter(pk=begun_by).exists():
        raise Conversation.DoesNotExist(f"user {begun_by} is gone")
    return found or Conversation(pk=conversation_id, owner_id=begun_by, opened_at=timezone.now())


@transaction.atomic
def _place(
    turn: Turn, *, voice_profile_id: uuid.UUID | None, said_at: dt.datetime | None, begun_by: int | None
) -> Turn:
    turn.text = strip_unseen(turn.text)
    if begun_by is not None:
        defaults = {"owner_id": begun_by, "opened_at": turn.conversation.opened_at}
        Conversation.objects.get_or_create(pk=turn.conversation_id, defaults=defaults)
    # The conversation's row is the queue for its next place. SQLite took the whole file's lock with BEGIN IMMEDIATE.
    conversation = Conversation.objects.select_for_update().get(pk=turn.conversation_id)
    kept = _kept_turn(turn.pk, conversation.pk)
    if kept is not None and not kept.is_in_progress:
        return kept
    now = timezone.now()
    if kept is None:
        last = conversation.turns.aggregate(last=Max("sequence"))["last"]
        turn.sequence = 1 if last is None else last + 1
        turn.created_at = said_at or now
    else:
        # Its place and its beginning are the begun row's; a correction may have superseded it since.
        turn.sequence, turn.created_at, turn.is_superseded = kept.sequence, kept.created_at, kept.is_superseded
    turn.voice_profile = VoiceProfile.objects.filter(pk=voice_profile_id).first() if voice_profile_id else None
    if voice_profile_id:
        turn.voice_name = turn.voice_profile.name if turn.voice_profile else DELETED_VOICE
    turn.save(force_insert=kept is None, force_update=kept is not None)
    if turn.voice_profile_id and kept is None:
        mark_used(voice_profile_id=turn.voice_profile_id)
    if settings.AVATAR_BEAUTIFUL_LATER and turn.audio and turn.quality == Quality.FAST:
        delay_on_commit(tasks.render_in_high_quality, turn_id=str(turn.pk))
    _index(turn, owner_id=conversation.owner_id)
    spoken_at = said_at or now
    conversation.last_turn_at = max(conversation.last_turn_at or spoken_at, spoken_at)
    if not conversation.title and turn.speaker == Speaker.USER:
        conversation.title = make_title(turn.text)
    conversation.save(update_fields=["last_turn_at", "title"])
    return turn


def _index(turn: Turn, *, owner_id: int) -> None:
    values = {"conversation_id": turn.conversation_id, "owner_id": owner_id, "text": index_text(turn.text)}
    TurnSearch.objects.update_or_create(turn=turn, defaults=values)


def _kept_turn(turn_id: uuid.UUID, conversation_id: uuid.UUID) -> Turn | None:
    turn = Turn.objects.filter(pk=turn_id).first()
    if turn is not None and turn.conversation_id != conversation_id:
        raise TurnOfAnotherConversation(f"turn {turn_id} is not of conversation {conversation_id}")
    return turn


def _write_audio(turn: Turn, audio: bytes) -> None:
    """Write the file before the row, outside of the transaction: a slow storage must not hold the database's lock."""
    write_file(turn.audio, audio, filename=f"turn.{suffix_of(audio)}")
