"""The verbs of conversations and turns: append, begin, drop and correct a turn; name, pin; choose a retention."""

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
from avatar_site.lib.stored_files import remove_files, write_file
from avatar_site.lib.text import strip_unseen
from conversations import retention, tasks
from conversations.encode import suffix_of
from conversations.models import DELETED_VOICE, Conversation, RetentionChoice, Speaker, Turn, TurnSearch, make_title
from conversations.search import index_text
from voices.models import Quality, VoiceProfile
from voices.services import mark_used

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from conversations.models import ConversationQuerySet, TurnQuerySet

logger = logging.getLogger(__name__)


#: A turn's lines in the Markdown and in the JSON, and the ZIP entry of its audio, as measured.
EXPORTED_BYTES_PER_TURN = 1_000


class TurnOfAnotherConversation(Exception):
    """The id of a turn is that of a turn in another conversation."""


class NotCorrectable(Exception):
    """The turn is not the user's, or was superseded."""


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
    Append a turn to its conversation, or finish the one that `begin_turn` began.

    With `begun_by`, the id of a user, a conversation that does not exist is created in the same transaction. Without it
    the conversation has to exist; one that was deleted is not created again.

    `audio` is Ogg/Opus or FLAC, or None. Saving a `turn_id` again changes nothing and returns the turn that is there.
    The first turn of the user becomes the title of a conversation without one. A voice that was deleted since is left
    out. A reply of `quality` fast may be synthesised again later (AVATAR_BEAUTIFUL_LATER). `said_at` dates a turn that
    is saved late; the default is now.

    Raises Conversation.DoesNotExist (also when the user was deleted), and TurnOfAnotherConversation.
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
    Save the text of a reply that is being spoken, and update it when called again.

    It reads as interrupted until `append_turn` finishes it, so that it is true if the web process is killed. A finished
    turn is not changed. Raises as `append_turn` does.
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
    Delete a reply that was begun and not heard at all. Does nothing if it is finished, or does not exist.

    Its pages are erased by the nightly retention run: nobody requested the deletion.
    """
    with transaction.atomic():
        begun = Turn.objects.filter(pk=turn_id, conversation=conversation_id, is_in_progress=True)
        TurnSearch.objects.filter(turn__in=list(begun)).delete()
        begun.delete()


@transaction.atomic
def correct_turn(*, conversation_id: uuid.UUID, turn_id: uuid.UUID, text: str, supersede: bool) -> Turn:
    """
    Replace the text of a user's turn; the transcript stays as `heard_text`.

    `supersede`: a new reply follows, so that all turns after this one are superseded. Repeating it changes nothing.
    Raises Conversation.DoesNotExist, Turn.DoesNotExist, NotCorrectable.
    """
    conversation = Conversation.objects.select_for_update().get(pk=conversation_id)
    turn = conversation.turns.get(pk=turn_id)
    if not turn.can_be_corrected:
        raise NotCorrectable(f"turn {turn_id}")
    heard = turn.heard_text or turn.text
    if text != turn.text:
        if turn.heard_text:
            # The text of an earlier correction is deleted; the transcript stays.
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


def index_again(*, turn_id: uuid.UUID) -> None:
    """Bring the search index to the text of a turn, which was changed by another way than `correct_turn`."""
    turn = Turn.objects.select_related("conversation").get(pk=turn_id)
    _index(turn, owner_id=turn.conversation.owner_id)


def delete_turns(*, turns: TurnQuerySet) -> int:
    """
    Delete turns, within a transaction of the caller, which may roll back, and derive the titles made of them anew.

    Return how many. A conversation that has none then is left to the retention. Files are removed once it is committed.
    """
    batch = list(turns)
    names = [turn.audio_name for turn in batch if turn.audio]
    retention.delete_turns(batch)
    emptied = Conversation.objects.filter(pk__in={turn.conversation_id for turn in batch}, turns=None)
    emptied.update(last_turn_at=None)
    transaction.on_commit(lambda: remove_files(names), robust=True)
    sqlite_erasure.erase_on_commit()
    return len(batch)


def change_conversation(
    *, conversation: Conversation, title: str | None = None, is_pinned: bool | None = None
) -> Conversation:
    """
    Change the title, the pin, or both. Writes no other column: a call may be appending turns.

    An empty title is replaced by the user's first turn, as before it was named.
    """
    changed = []
    if title is not None:
        conversation.title = title or conversation.derive_title()
        changed.append("title")
    if is_pinned is not None:
        conversation.is_pinned = is_pinned
        changed.append("is_pinned")
    conversation.save(update_fields=changed)
    return conversation


def estimate_size(*, conversations: ConversationQuerySet) -> int:
    """Return the approximate size of an export: its audio, and a fixed number of bytes per turn."""
    turns = Turn.objects.filter(conversation__in=conversations.order_by().values("pk"))
    figures = turns.aggregate(audio=Sum("audio_bytes"), turns=Count("pk"))
    return (figures["audio"] or 0) + EXPORTED_BYTES_PER_TURN * figures["turns"]


class LongerThanSite(Exception):
    """A chosen retention is longer than the site's. `field` is which one, `days` the maximum."""

    def __init__(self, field: str, days: int) -> None:
        super().__init__(f"{field}: at most {days}")
        self.field = field
        self.days = days


def choose_retention(*, user: User, audio_days: int | None, text_days: int | None) -> None:
    """Save a person's own limits, in days; None is the site's. Raises LongerThanSite."""
    site = retention.read_site_limits()
    for name, wanted, most in (
        ("audio_days", audio_days, site.audio_days),
        ("text_days", text_days, site.text_days),
    ):
        if wanted is not None and most is not None and wanted > most:
            raise LongerThanSite(name, most)
    RetentionChoice.objects.update_or_create(user=user, defaults={"audio_days": audio_days, "text_days": text_days})


def describe_retention(*, user: User) -> dict[str, Any]:
    """Return a person's own limits, the site's, and the effective ones."""
    chosen = RetentionChoice.objects.filter(user=user).first()
    return {
        "audio_days": chosen.audio_days if chosen else None,
        "text_days": chosen.text_days if chosen else None,
        "site": retention.read_site_limits(),
        "effective": retention.read_effective_limits(user),
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
    # Locks the conversation's row for the next sequence number. On SQLite, BEGIN IMMEDIATE has locked the database.
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
        # Sequence and time are those of the begun row; a correction may have superseded it since.
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
