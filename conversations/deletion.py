"""
Deletes conversations: their files, their rows, their spools, and what SQLite's files still have of the rows.

A turn that a call saves afterwards finds no conversation, and leaves no file either.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db import transaction

from avatar_site.lib import sqlite_erasure
from avatar_site.lib.stored_files import RemovalAborted, list_files, remove_files
from conversations import spool
from conversations.models import Conversation, Turn, TurnSearch

if TYPE_CHECKING:
    from conversations.models import ConversationQuerySet

#: Conversations deleted in one transaction.
BATCH = 100


class FilesRemain(Exception):
    """The storage refuses to remove files, so that not everything was deleted."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """How much was deleted."""

    conversations: int = 0
    turns: int = 0
    audio_files: int = 0

    def __add__(self, other: Deleted) -> Deleted:
        return Deleted(
            self.conversations + other.conversations, self.turns + other.turns, self.audio_files + other.audio_files
        )


def delete_conversations(*, conversations: ConversationQuerySet) -> Deleted:
    """
    Delete conversations with all that belongs to them.

    Raises FilesRemain at the first file that cannot be removed. Its conversation, and those after it in the order of
    their ids, are still there and can be deleted again.
    """
    deleted = Deleted()
    wanted = list(conversations.order_by("pk").values_list("pk", flat=True))
    try:
        for start in range(0, len(wanted), BATCH):
            deleted += _delete_batch(wanted[start : start + BATCH])
    finally:
        sqlite_erasure.erase_on_commit()
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
    # Files that were saved between the two steps, or left by a process that was killed.
    late = deleted.names - {name for names in gone.values() for name in names}
    with suppress(RemovalAborted, OSError):
        remove_files(late | {name for folder in folders for name in list_files(folder)})
    if problem is not None:
        raise FilesRemain from problem
    return Deleted(deleted.conversations, deleted.turns, len(deleted.names))


def _forget_files(conversation_id: uuid.UUID, names: list[str]) -> None:
    """Clear the audio of turns whose files were removed."""
    for start in range(0, len(names), BATCH):
        turns = Turn.objects.filter(conversation=conversation_id, audio__in=names[start : start + BATCH])
        turns.update(audio="", audio_bytes=0)


def delete_rows_of_conversations(*, conversations: ConversationQuerySet) -> None:
    """
    Delete conversations within a transaction of the caller, which may roll back.

    Their files are removed once it is committed; one that cannot be removed then is left to the sweep of orphans.
    """
    wanted = list(conversations.values_list("pk", flat=True))
    folders = [each.audio_folder for each in conversations]
    names = _delete_rows(wanted).names
    transaction.on_commit(lambda: remove_files(names), robust=True)
    transaction.on_commit(lambda: remove_files([name for each in folders for name in list_files(each)]), robust=True)
    transaction.on_commit(lambda: spool.remove(wanted), robust=True)
    sqlite_erasure.erase_on_commit()


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
