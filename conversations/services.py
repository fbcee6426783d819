"""What is done with conversations."""

from __future__ import annotations

import datetime as dt
import errno
import logging
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, transaction
from django.db.models import Count, Max, Sum
from django.utils import timezone

from avatar_site.lib.handover import delay_on_commit
from avatar_site.lib.stored_files import RemovalAborted, list_files, remove_files, write_file
from avatar_site.lib.text import strip_unseen
from conversations import erasure, retention, spool, tasks
from conversations.models import DELETED_VOICE, Conversation, RetentionChoice, Speaker, Turn, TurnSearch
from conversations.search import index_text
from conversations.sound import suffix_of
from conversations.spool import Change
from conversations.titles import find_title, make_title
from voices.models import Quality, VoiceProfile
from voices.services import mark_used

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from conversations.models import ConversationQuerySet

logger = logging.getLogger(__name__)


#: Conversations deleted in one transaction.
BATCH = 100
#: In a long memory, what is deleted stays readable in the database's file for so long, and one merge serves many.
ERASED_AFTER_S = 60
#: After this a queue that was lost no longer counts as one.
_QUEUED_FOR_S = 15 * 60
#: Its lines in the Markdown and in the JSON, and what a ZIP says about its audio file, as measured.
EXPORTED_BYTES_PER_TURN = 1_000


class TurnOfAnotherConversation(Exception):
    """A turn id was given that is a turn of another conversation already."""


class NotCorrectable(Exception):
    """Only what the user said can be corrected, and only while it is a part of the conversation."""


class FilesRemain(Exception):
    """The storage does not let files be removed now, so that not everything was deleted."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """How much is gone."""

    conversations: int = 0
    turns: int = 0
    audio_files: int = 0

    def __add__(self, other: Deleted) -> Deleted:
        return Deleted(
            self.conversations + other.conversations, self.turns + other.turns, self.audio_files + other.audio_files
        )


def has_conversation(*, conversation_id: uuid.UUID, owner_id: int) -> bool:
    """
    Whether a person has this conversation. One that has no row because its first turns are in the spool gets it now.

    Raises what may pass: django.db.Error and OSError. Then it is not known.
    """
    conversations = Conversation.objects.filter(pk=conversation_id)
    if not conversations.exists():
        take_in_spooled_turns(conversation_id=conversation_id)
    return conversations.filter(owner_id=owner_id).exists()


def resume_conversation(*, conversation_id: uuid.UUID, limit: int) -> list[tuple[uuid.UUID, str, str]]:
    """
    Note that a call goes on with a conversation, and return its `recent_messages`.

    For a day the retention does not delete it, even if nothing that was said is left in it. What an earlier call could
    not save comes first.
    """
    try:
        take_in_spooled_turns(conversation_id=conversation_id)
    except OSError as error:
        logger.warning("the spool of conversation %s waits: %s", conversation_id, error)
    Conversation.objects.filter(pk=conversation_id).update(opened_at=timezone.now())
    return recent_messages(conversation_id=conversation_id, limit=limit)


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


def apply_change(*, conversation_id: uuid.UUID, change: Change) -> None:
    """Make a change to what is kept of a conversation. Raises what its service raises."""
    match change.verb:
        case "append_turn":
            append_turn(conversation_id=conversation_id, **change.fields)
        case "begin_turn":
            begin_turn(conversation_id=conversation_id, **change.fields)
        case "drop_turn":
            drop_turn(conversation_id=conversation_id, **change.fields)
        case "correct_turn":
            correct_turn(conversation_id=conversation_id, **change.fields)


def spool_change(*, conversation_id: uuid.UUID, change: Change) -> None:
    """Keep a change on the disk until the database is back. Raises OSError."""
    spool.append(conversation_id, [change])


def take_in_spooled_turns(*, conversation_id: uuid.UUID) -> int:
    """
    Make the changes that a conversation's spool has, and return how many those were.

    A change that can never be made is logged and passed over; the spool of a conversation that was deleted is removed.
    Raises what may pass: django.db.Error and OSError. Nothing of the spool is lost by it.
    """
    try:
        return spool.take_in(conversation_id, partial(_take_in, conversation_id))
    except Conversation.DoesNotExist:
        spool.remove([conversation_id])
        return 0


def take_in_all_spooled_turns() -> int:
    """Make what waits in spools whole, of every conversation. Return how many changes those were."""
    taken = 0
    for conversation_id in spool.list_conversations():
        try:
            taken += take_in_spooled_turns(conversation_id=conversation_id)
        except (DatabaseError, InterfaceError, OSError) as error:
            logger.warning("the spool of conversation %s waits: %s", conversation_id, error)
    if taken:
        logger.info("%d changes were taken in from spools", taken)
    return taken


def _take_in(conversation_id: uuid.UUID, change: Change) -> None:
    try:
        apply_change(conversation_id=conversation_id, change=change)
    except OSError as error:
        if not change.has_audio or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        logger.warning("turn %s is kept without its sound: %s", change.turn_id, error)
        apply_change(conversation_id=conversation_id, change=change.without_audio())
    except (NotCorrectable, Turn.DoesNotExist, TurnOfAnotherConversation, ValueError, TypeError) as error:
        logger.error("%s of turn %s is passed over: %s", change.verb, change.turn_id, error)
    except (DataError, IntegrityError):
        logger.exception("%s of turn %s is passed over", change.verb, change.turn_id)


def recent_messages(*, conversation_id: uuid.UUID, limit: int) -> list[tuple[uuid.UUID, str, str]]:
    """The last `limit` turns that the model remembers, oldest first, as (turn id, speaker, text)."""
    turns = Turn.objects.filter(conversation_id=conversation_id).remembered().order_by("-sequence", "pk")
    return list(reversed(turns.values_list("pk", "speaker", "text")[:limit]))


def find_memory_of(
    *, conversation_id: uuid.UUID, turn_id: uuid.UUID, limit: int
) -> list[tuple[uuid.UUID, str, str]] | None:
    """The turn, with up to `limit` remembered ones before it, as `recent_messages`. None if it cannot be corrected."""
    turn = Turn.objects.filter(conversation_id=conversation_id, pk=turn_id).first()
    if turn is None or not turn.can_be_corrected:
        return None
    before = Turn.objects.filter(conversation_id=conversation_id, sequence__lt=turn.sequence).remembered()
    said = list(before.order_by("-sequence", "pk").values_list("pk", "speaker", "text")[:limit])
    return [*reversed(said), (turn.pk, turn.speaker, turn.text)]


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
            forget_deleted_words()
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
        conversation.title = title or find_title(conversation)
        changed.append("title")
    if is_pinned is not None:
        conversation.is_pinned = is_pinned
        changed.append("is_pinned")
    conversation.save(update_fields=changed)
    return conversation


def delete_conversations(*, conversations: ConversationQuerySet) -> Deleted:
    """
    Delete conversations with all that belongs to them: their files, and then their rows.

    A turn that a call wants to save afterwards finds no conversation, and leaves no file either.

    Raises FilesRemain at the first file that cannot be removed: its conversation and all that had not had their turn
    are still there, to be deleted again.
    """
    deleted = Deleted()
    wanted = list(conversations.order_by("pk").values_list("pk", flat=True))
    try:
        for start in range(0, len(wanted), BATCH):
            deleted += _delete_batch(wanted[start : start + BATCH])
    finally:
        forget_deleted_words()
    return deleted


def _delete_batch(wanted: list[uuid.UUID]) -> Deleted:
    gone: dict[uuid.UUID, list[str]] = {}
    problem: RemovalAborted | None = None
    for conversation_id in wanted:
        turns = Turn.objects.filter(conversation=conversation_id).exclude(audio="")
        try:
            gone[conversation_id] = remove_files(turns.values_list("audio", flat=True), max_failures=1)
        except RemovalAborted as error:
            problem = error
            _forget_files(conversation_id, error.removed)
            break
    folders = [each.audio_folder for each in Conversation.objects.filter(pk__in=gone)]
    deleted = _delete_rows(list(gone))
    spool.remove(gone)
    # Saved or replaced between the files and the rows, or left there by a process that was killed.
    late = deleted.names - {name for names in gone.values() for name in names}
    with suppress(RemovalAborted, OSError):
        remove_files(late | {name for folder in folders for name in list_files(folder)})
    if problem is not None:
        raise FilesRemain from problem
    return Deleted(deleted.conversations, deleted.turns, len(deleted.names))


def _forget_files(conversation_id: uuid.UUID, names: list[str]) -> None:
    """Let turns say that their files are gone."""
    for start in range(0, len(names), BATCH):
        turns = Turn.objects.filter(conversation=conversation_id, audio__in=names[start : start + BATCH])
        turns.update(audio="", audio_bytes=0)


def delete_rows_of_conversations(*, conversations: ConversationQuerySet) -> None:
    """
    Delete conversations for a caller with a transaction of its own, which may yet be taken back.

    Their files go once it is kept; one that cannot be removed then is an orphan, which `remove_orphans` removes.
    """
    wanted = list(conversations.values_list("pk", flat=True))
    folders = [each.audio_folder for each in conversations]
    names = _delete_rows(wanted).names
    transaction.on_commit(lambda: remove_files(names), robust=True)
    transaction.on_commit(lambda: remove_files([name for each in folders for name in list_files(each)]), robust=True)
    transaction.on_commit(lambda: spool.remove(wanted), robust=True)
    forget_deleted_words()


@dataclass(frozen=True, slots=True)
class _DeletedRows:
    conversations: int
    turns: int
    #: Of the files that the rows named.
    names: frozenset[str]


@transaction.atomic
def _delete_rows(wanted: list[uuid.UUID]) -> _DeletedRows:
    # Locked, so that a turn which is being saved comes either before this or not at all.
    locked = Conversation.objects.select_for_update().filter(pk__in=wanted).order_by("pk")
    found = list(locked.values_list("pk", flat=True))
    turns = Turn.objects.filter(conversation__in=found)
    names = frozenset(turns.exclude(audio="").values_list("audio", flat=True))
    turn_count = turns.count()
    TurnSearch.objects.filter(conversation__in=found).delete()
    Conversation.objects.filter(pk__in=found).delete()
    return _DeletedRows(len(found), turn_count, names)


def forget_deleted_words() -> None:
    """
    Have words that were deleted vanish from the database's file: at once, or from a long memory within minutes.

    Call it whenever words have been deleted; within a transaction it happens after that.
    """
    transaction.on_commit(_forget_deleted_words, robust=True)


def _forget_deleted_words() -> None:
    if erasure.is_quick() and erasure.erase_deleted_words():
        return
    if cache.add(tasks.ERASURE_IS_QUEUED, True, _QUEUED_FOR_S):
        tasks.erase_deleted_words.apply_async(countdown=ERASED_AFTER_S)


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
