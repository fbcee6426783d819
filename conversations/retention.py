"""
The retention: for how many days audio and text are kept, and the removal of what is older.

The site sets limits, a person may set shorter ones, and pinned conversations are exempt. A turn is as old as its
beginning: a long conversation loses its oldest turns first, and is deleted with its last one.
"""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from avatar_site.lib import sqlite_erasure
from avatar_site.lib.stored_files import RemovalAborted, remove_files
from conversations.models import Conversation, RetentionChoice, RetentionRun, Turn, TurnQuerySet, TurnSearch, make_title

logger = logging.getLogger(__name__)

BATCH = 500
#: A call may resume a conversation and leave it without turns. Younger than this, it may be going on.
EMPTY_FOR = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Limits:
    """Days; None keeps without limit."""

    audio_days: int | None = None
    text_days: int | None = None


@dataclass(slots=True)
class Expired:
    """What a run removes, or would in a dry run. `audio_files` includes those of removed turns."""

    audio_files: int = 0
    audio_bytes: int = 0
    turns: int = 0
    conversations: int = 0


def read_site_limits() -> Limits:
    return Limits(settings.AVATAR_RETENTION_AUDIO_DAYS or None, settings.AVATAR_RETENTION_TEXT_DAYS or None)


def read_effective_limits(user: User) -> Limits:
    """Return the limits in effect for a person."""
    choice = RetentionChoice.objects.filter(user=user).first()
    chosen = Limits(choice.audio_days, choice.text_days) if choice else Limits()
    return combine(read_site_limits(), chosen)


def combine(site: Limits, chosen: Limits) -> Limits:
    """Return the shorter of each pair."""
    return Limits(_shorter(site.audio_days, chosen.audio_days), _shorter(site.text_days, chosen.text_days))


def _shorter(one: int | None, other: int | None) -> int | None:
    return min((days for days in (one, other) if days is not None), default=None)


def purge_expired(*, now: dt.datetime, is_dry_run: bool = False) -> Expired:
    """
    Remove what has expired, and save a RetentionRun with the counts. A dry run changes nothing.

    A run that was interrupted is continued by the next. One that finds the storage away has no `finished_at`.
    """
    run = None if is_dry_run else RetentionRun.objects.create(started_at=now)
    expired = Expired()
    try:
        _remove_expired(expired, now=now, is_dry_run=is_dry_run)
    except RemovalAborted:
        logger.exception("retention is interrupted: the storage is away")
    else:
        if run is not None:
            run.finished_at = timezone.now()
    if run is not None:
        run.audio_files, run.audio_bytes = expired.audio_files, expired.audio_bytes
        run.turns, run.conversations = expired.turns, expired.conversations
        run.save()
        sqlite_erasure.erase_deleted_rows()
    logger.info(
        "retention%s: %d audio files (%d bytes), %d turns, %d conversations",
        ", dry run" if is_dry_run else "",
        expired.audio_files,
        expired.audio_bytes,
        expired.turns,
        expired.conversations,
    )
    return expired


def _remove_expired(expired: Expired, *, now: dt.datetime, is_dry_run: bool) -> None:
    for limits, owners in _group_by_limits():
        if limits.text_days is not None:
            turns = Turn.objects.expired(now - dt.timedelta(days=limits.text_days), owners=owners)
            _remove_turns(turns, expired, opened_since=now - EMPTY_FOR, is_dry_run=is_dry_run)
        if limits.audio_days is not None:
            turns = Turn.objects.expired(now - dt.timedelta(days=limits.audio_days), owners=owners).exclude(audio="")
            if is_dry_run and limits.text_days is not None:
                # Counted already, with their turns.
                turns = turns.filter(created_at__gte=now - dt.timedelta(days=limits.text_days))
            _remove_audio(turns, expired, is_dry_run=is_dry_run)
    empty = Conversation.objects.without_turns_since(now - EMPTY_FOR)
    expired.conversations += empty.count() if is_dry_run else empty.delete()[1].get("conversations.Conversation", 0)


def _group_by_limits() -> Iterator[tuple[Limits, QuerySet[User]]]:
    """Yield each combination of limits, with the people who have it."""
    site = read_site_limits()
    yield site, User.objects.filter(retention_choice=None)
    for audio_days, text_days in RetentionChoice.objects.order_by().values_list("audio_days", "text_days").distinct():
        choices = RetentionChoice.objects.filter(audio_days=audio_days, text_days=text_days)
        owners = User.objects.filter(pk__in=choices.values("user"))
        yield combine(site, Limits(audio_days, text_days)), owners


def _remove_audio(turns: TurnQuerySet, expired: Expired, *, is_dry_run: bool) -> None:
    for batch in _take_batches(turns):
        if not is_dry_run:
            batch = _without_files(batch)
            Turn.objects.filter(pk__in=[turn.pk for turn in batch]).update(audio="", audio_bytes=0)
        expired.audio_files += len(batch)
        expired.audio_bytes += sum(turn.audio_bytes for turn in batch)


def _remove_turns(turns: TurnQuerySet, expired: Expired, *, opened_since: dt.datetime, is_dry_run: bool) -> None:
    doomed: Counter[uuid.UUID] = Counter()
    for batch in _take_batches(turns):
        if not is_dry_run:
            batch = _without_files(batch)
            delete_turns(batch)
        doomed.update(turn.conversation_id for turn in batch)
        with_audio = [turn for turn in batch if turn.audio]
        expired.turns += len(batch)
        expired.audio_files += len(with_audio)
        expired.audio_bytes += sum(turn.audio_bytes for turn in with_audio)
    for conversation_id, count in doomed.items():
        if is_dry_run:
            is_idle = Conversation.objects.not_opened_since(opened_since).filter(pk=conversation_id).exists()
            expired.conversations += is_idle and Turn.objects.filter(conversation=conversation_id).count() == count
        else:
            expired.conversations += _delete_if_empty(conversation_id, opened_since=opened_since)


def _without_files(batch: list[Turn]) -> list[Turn]:
    """Remove the files of turns; return those turns. A turn whose file could not be removed is left to the next run."""
    removed = set(remove_files(turn.audio_name for turn in batch if turn.audio))
    return [turn for turn in batch if not turn.audio or turn.audio_name in removed]


@transaction.atomic
def _delete_if_empty(conversation_id: uuid.UUID, *, opened_since: dt.datetime) -> bool:
    """Delete a conversation without turns, unless a call may be going on in it: that is left to a later run."""
    # Locked, so that no call adds a turn in between.
    conversation = Conversation.objects.select_for_update().filter(pk=conversation_id).first()
    if conversation is None or conversation.turns.exists():
        return False
    if conversation.opened_at is not None and conversation.opened_at >= opened_since:
        # As in a call without turns yet: not listed, and deleted by a later run.
        conversation.last_turn_at = None
        conversation.save(update_fields=["last_turn_at"])
        return False
    conversation.delete()
    return True


@transaction.atomic
def delete_turns(batch: Collection[Turn]) -> None:
    """Delete turns, their tokens in the index, and the titles made of them."""
    ids = [turn.pk for turn in batch]
    TurnSearch.objects.filter(turn__in=ids).delete()
    Turn.objects.filter(pk__in=ids).delete()
    titles: defaultdict[uuid.UUID, set[str]] = defaultdict(set)
    for turn in batch:
        titles[turn.conversation_id] |= {make_title(turn.text), make_title(turn.heard_text)} - {""}
    for conversation in Conversation.objects.filter(pk__in=titles):
        if conversation.title in titles[conversation.pk]:
            conversation.title = conversation.derive_title()
            conversation.save(update_fields=["title"])


def _take_batches(turns: TurnQuerySet) -> Iterator[list[Turn]]:
    """Yield turns in batches, by id: a batch whose removal failed must not be yielded again."""
    ordered = turns.select_related("conversation").order_by("pk")
    batch = list(ordered[:BATCH])
    while batch:
        yield batch
        batch = list(ordered.filter(pk__gt=batch[-1].pk)[:BATCH])
