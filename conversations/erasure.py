"""
Making words that were deleted unreadable in SQLite's file, where deleting rows alone does not.

FTS5 only notes in its index that a row is gone; its words stay until the parts that they are in are merged. Rows
themselves are overwritten (`secure_delete`), but the write-ahead log has copies of them.
"""

from __future__ import annotations

import logging
from typing import cast

from django.db import connection

from avatar_site.lib.sqlite_erasure import forget_deleted_rows
from conversations.models import TurnSearch

logger = logging.getLogger(__name__)

#: Up to so many turns the whole index is merged in some tenths of a second, while somebody waits.
SMALL = 50_000
#: Pages merged in one transaction: others wait for its end before they can write.
PAGES_A_STEP = 64
#: Far more than any index takes: an end in sight, should a merge ever find work for ever.
MAX_STEPS = 100_000
_MERGE = "INSERT INTO conversations_turnsearch_fts(conversations_turnsearch_fts, rank) VALUES ('merge', %s)"


def is_quick() -> bool:
    """Whether `erase_deleted_words` takes no longer than somebody may be kept waiting."""
    return connection.vendor != "sqlite" or TurnSearch.objects.count() <= SMALL


def erase_deleted_words() -> bool:
    """
    Merge the search index into one part without what was deleted, and empty the write-ahead log.

    Return whether nothing is left: a concurrent reader keeps the log, and it has to be done again.

    Not within a transaction. 0.3 seconds for 100,000 turns on idle cores, in steps between which others can write. On
    PostgreSQL, autovacuum does both in its own time.
    """
    if connection.vendor != "sqlite":
        return True
    pages = -PAGES_A_STEP  # negative: all parts at once, whatever their sizes
    for _ in range(MAX_STEPS):
        if not _merge(pages):
            break
        pages = PAGES_A_STEP
    else:
        logger.error("the search index was not merged to its end")
    is_erased = forget_deleted_rows()
    if not is_erased:
        logger.warning("copies of what was deleted stay in the database's log: somebody reads it now")
    return is_erased


def _merge(pages: int) -> bool:
    """Merge about so many pages. Return whether there was any to merge: SQLite then counts more than one change."""
    with connection.cursor() as cursor:
        before = cast(int, connection.connection.total_changes)
        cursor.execute(_MERGE, [pages])
        return cast(int, connection.connection.total_changes) - before > 1
