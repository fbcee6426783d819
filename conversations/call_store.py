"""
The store of a live call: resume a conversation, apply changes to it, or spool them while the database is away.

A change is a verb of `services` with its arguments. Every one may be applied twice.
"""

from __future__ import annotations

import errno
import logging
import uuid
from functools import partial

from django.db import DatabaseError, DataError, IntegrityError, InterfaceError
from django.utils import timezone

from conversations import spool
from conversations.models import Conversation, Turn
from conversations.queries import read_recent_messages
from conversations.services import (
    NotCorrectable,
    TurnOfAnotherConversation,
    append_turn,
    begin_turn,
    correct_turn,
    drop_turn,
)
from conversations.spool import Change

logger = logging.getLogger(__name__)


def has_conversation(*, conversation_id: uuid.UUID, owner_id: int) -> bool:
    """
    Return whether a person has this conversation. Replays its spool if it has no row: its first turns may be there.

    Raises django.db.Error and OSError while the database or the spool is away; then it is not known.
    """
    conversations = Conversation.objects.filter(pk=conversation_id)
    if not conversations.exists():
        replay_spooled_turns(conversation_id=conversation_id)
    return conversations.filter(owner_id=owner_id).exists()


def resume_conversation(*, conversation_id: uuid.UUID, limit: int) -> list[tuple[uuid.UUID, str, str]]:
    """
    Note that a call resumes a conversation, and return its `read_recent_messages`, those in its spool included.

    For a day the retention does not delete it, even if it has no turns left.
    """
    try:
        replay_spooled_turns(conversation_id=conversation_id)
    except OSError as error:
        logger.warning("the spool of conversation %s waits: %s", conversation_id, error)
    Conversation.objects.filter(pk=conversation_id).update(opened_at=timezone.now())
    return read_recent_messages(conversation_id=conversation_id, limit=limit)


def apply_change(*, conversation_id: uuid.UUID, change: Change) -> None:
    """Apply a change. Raises what its service raises."""
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
    """Write a change to the disk, to be replayed when the database is back. Raises OSError."""
    spool.append(conversation_id, [change])


def replay_spooled_turns(*, conversation_id: uuid.UUID) -> int:
    """
    Apply the changes in a conversation's spool, and return how many there were.

    A change that can never be applied is logged and skipped; the spool of a deleted conversation is removed. Raises
    django.db.Error and OSError while the database or the spool is away, and loses nothing of it.
    """
    try:
        return spool.replay(conversation_id, partial(_replay_change, conversation_id))
    except Conversation.DoesNotExist:
        spool.remove([conversation_id])
        return 0


def replay_all_spooled_turns() -> int:
    """Apply the changes in the spools of all conversations, as far as that is possible now. Return how many."""
    count = 0
    for conversation_id in spool.list_conversations():
        try:
            count += replay_spooled_turns(conversation_id=conversation_id)
        except (DatabaseError, InterfaceError, OSError) as error:
            logger.warning("the spool of conversation %s waits: %s", conversation_id, error)
    if count:
        logger.info("%d changes were replayed from spools", count)
    return count


def _replay_change(conversation_id: uuid.UUID, change: Change) -> None:
    try:
        apply_change(conversation_id=conversation_id, change=change)
    except OSError as error:
        if not change.has_audio or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        logger.warning("turn %s is kept without its audio: %s", change.turn_id, error)
        apply_change(conversation_id=conversation_id, change=change.without_audio())
    except (NotCorrectable, Turn.DoesNotExist, TurnOfAnotherConversation, ValueError, TypeError) as error:
        logger.error("%s of turn %s is skipped: %s", change.verb, change.turn_id, error)
    except (DataError, IntegrityError):
        logger.exception("%s of turn %s is skipped", change.verb, change.turn_id)
