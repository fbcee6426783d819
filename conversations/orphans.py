"""The sweep of turns' audio: files that no row names, and rows whose file is missing."""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from dataclasses import dataclass, field

from django.core.files.storage import default_storage
from django.db import transaction

from avatar_site.lib import stored_files
from avatar_site.lib.stored_files import FEW_ORPHANS, Sweep, check_guards, remove_files
from conversations.models import AUDIO_ROOT, LOST_AUDIO, StorageCheck, Turn

logger = logging.getLogger(__name__)

BATCH = 500
#: More of the named files than this do not go missing by themselves.
MAX_MISSING_SHARE = 0.1


@dataclass(slots=True)
class Orphans:
    """What a sweep found. `turns` are those whose file is missing, each with the name that it had."""

    sweep: Sweep = field(default_factory=Sweep)
    turns: dict[uuid.UUID, str] = field(default_factory=dict)
    #: All rows that name a file.
    row_count: int = 0

    @property
    def doubt(self) -> str:
        """Why the storage or the database seems to be the wrong one; empty if neither does."""
        missing = len(self.turns)
        if missing and (
            missing == self.row_count or (missing > FEW_ORPHANS and missing > self.row_count * MAX_MISSING_SHARE)
        ):
            return f"{missing} of {self.row_count} files that turns name are missing: is the storage away?"
        if self.sweep.is_doubtful:
            orphaned, count = len(self.sweep.files), self.sweep.file_count
            return f"{orphaned} of {count} files belong to no turn: is this another database?"
        return ""


class DoubtfulOrphans(Exception):
    """So much is missing that nothing was changed. `orphans` has what was found."""

    def __init__(self, orphans: Orphans) -> None:
        super().__init__(orphans.doubt)
        self.orphans = orphans


def find_orphans(*, now: dt.datetime) -> Orphans:
    """Look at every file and every row."""
    orphans = Orphans(stored_files.find_orphans(AUDIO_ROOT, find_named=_find_named, now=now))
    rows = Turn.objects.exclude(audio="").order_by("pk").values_list("pk", "audio")
    for pk, name in rows.iterator(chunk_size=BATCH):
        orphans.row_count += 1
        if not default_storage.exists(name):
            orphans.turns[pk] = name
    return orphans


def _find_named(names: list[str]) -> set[str]:
    return set(Turn.objects.filter(audio__in=names).values_list("audio", flat=True))


def remove_orphans(*, now: dt.datetime, is_dry_run: bool = False, is_forced: bool = False) -> Orphans:
    """
    Remove files without a row, and clear the audio of turns whose file is missing. Return what was found.

    Raises DoubtfulOrphans, and changes nothing, where too much is missing for that to be true, unless it `is_forced`:
    a folder that was not mounted for an hour would cost every recording. Saves a StorageCheck. Raises SweepRefused, and
    looks at nothing, where a guard forbids sweeps; `is_forced` does not override it.
    """
    if not is_dry_run:
        check_guards()
    orphans = find_orphans(now=now)
    is_refused = bool(orphans.doubt) and not is_forced and not is_dry_run
    if not is_dry_run:
        StorageCheck.objects.create(
            checked_at=now,
            was_refused=is_refused,
            files=orphans.sweep.file_count,
            files_without_turn=len(orphans.sweep.files),
            turns=orphans.row_count,
            turns_without_file=len(orphans.turns),
        )
    if is_refused:
        logger.error("orphans are left alone: %s (manage.py remove_orphans --force)", orphans.doubt)
        raise DoubtfulOrphans(orphans)
    if not is_dry_run:
        remove_files(orphans.sweep.files)
        for pk, name in orphans.turns.items():
            _forget_lost_file(pk, name)
    logger.info(
        "orphans%s: %d files (%d bytes), %d turns without their file",
        ", dry run" if is_dry_run else "",
        len(orphans.sweep.files),
        orphans.sweep.file_bytes,
        len(orphans.turns),
    )
    return orphans


@transaction.atomic
def _forget_lost_file(turn_id: uuid.UUID, name: str) -> None:
    # On the condition that the turn was not given another file since.
    if Turn.objects.filter(pk=turn_id, audio=name).update(audio=LOST_AUDIO):
        Turn.objects.filter(pk=turn_id).update(audio="", audio_bytes=0)
