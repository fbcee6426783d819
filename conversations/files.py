"""The files of turns in the storage: removing them, and finding those that belong to no row."""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from django.core.files.storage import default_storage

from conversations.models import AUDIO_ROOT, Conversation, StorageCheck, Turn, audio_folder
from voices.files import FEW_ORPHANS, are_doubtful

logger = logging.getLogger(__name__)

#: A file is written before its row: one this young may be about to get it.
MIN_AGE = dt.timedelta(hours=1)
BATCH = 500
#: So many failures one after another are not these files', but the storage's.
MAX_FAILURES = 3
#: More of the known files than this do not go missing by themselves.
MAX_MISSING_SHARE = 0.1


class StorageAway(Exception):
    """Files cannot be removed now. `removed`: those that are gone already."""

    def __init__(self, removed: list[str]) -> None:
        super().__init__(f"given up after {len(removed)} files")
        self.removed = removed


def remove_files(names: Iterable[str], *, max_failures: int = MAX_FAILURES) -> list[str]:
    """
    Remove files, and the folders that are empty then. Return those that are gone.

    One that cannot be removed is logged and passed over: `remove_orphans` finds it again once it has no row. After
    `max_failures` in a row it is the storage that is away, which may take its time to say so for each file: raises
    StorageAway.
    """
    removed: list[str] = []
    failures = 0
    for name in names:
        try:
            default_storage.delete(name)
        except OSError:
            logger.exception("could not remove %s", name)
            failures += 1
            if failures < max_failures:
                continue
            _remove_empty_folders_of(removed)
            raise StorageAway(removed) from None
        failures = 0
        removed.append(name)
    _remove_empty_folders_of(removed)
    return removed


def find_audio_folder(conversation: Conversation) -> str:
    return audio_folder(owner_id=conversation.owner_id, conversation_id=conversation.pk)


def list_files(folder: str) -> Iterator[str]:
    """Names of all files under a folder, those of writes that were interrupted as well; none if there is no folder."""
    try:
        folders, files = default_storage.listdir(folder)
    except FileNotFoundError:
        return
    for name in files:
        yield f"{folder}/{name}"
    for name in folders:
        yield from list_files(f"{folder}/{name}")


def _remove_empty_folders_of(names: Iterable[str]) -> None:
    for folder in {PurePosixPath(name).parent for name in names}:
        for path in (folder, folder.parent):
            _remove_empty_folder(path)


def _remove_empty_folder(folder: PurePosixPath) -> None:
    if folder == PurePosixPath(AUDIO_ROOT) or AUDIO_ROOT not in folder.parts:
        return
    try:
        # A storage of files removes an empty folder like a file; others know no folders and find nothing.
        default_storage.delete(str(folder))
    except OSError:
        # Not empty: somebody else's turns are in it.
        return


@dataclass(slots=True)
class Orphans:
    """What lies in the storage without a row, and turns whose file is gone, each with the name that it had."""

    files: list[str] = field(default_factory=list)
    file_bytes: int = 0
    turns: dict[uuid.UUID, str] = field(default_factory=dict)
    #: How many files lie there and how many rows name one, all in all.
    file_count: int = 0
    row_count: int = 0

    @property
    def doubt(self) -> str:
        """Why this looks like a storage or a database that is not the right one; empty if it does not."""
        missing, orphaned = len(self.turns), len(self.files)
        if missing and (
            missing == self.row_count or (missing > FEW_ORPHANS and missing > self.row_count * MAX_MISSING_SHARE)
        ):
            return f"{missing} of {self.row_count} files that turns name are missing: is the storage away?"
        if are_doubtful(orphaned, of=self.file_count):
            return f"{orphaned} of {self.file_count} files belong to no turn: is this another database?"
        return ""


class DoubtfulOrphans(Exception):
    """So much is missing that nothing was touched. `orphans` says what was found."""

    def __init__(self, orphans: Orphans) -> None:
        super().__init__(orphans.doubt)
        self.orphans = orphans


def find_orphans(*, now: dt.datetime) -> Orphans:
    """Look at every file and every row. Files younger than an hour are passed over."""
    orphans = Orphans()
    files = list_files(AUDIO_ROOT)
    while batch := [name for _, name in zip(range(BATCH), files, strict=False)]:
        orphans.file_count += len(batch)
        kept = set(Turn.objects.filter(audio__in=batch).values_list("audio", flat=True))
        for name in batch:
            if name in kept or not _is_old(name, now=now):
                continue
            orphans.files.append(name)
            orphans.file_bytes += default_storage.size(name)
    rows = Turn.objects.exclude(audio="").order_by("pk").values_list("pk", "audio")
    for pk, name in rows.iterator(chunk_size=BATCH):
        orphans.row_count += 1
        if not default_storage.exists(name):
            orphans.turns[pk] = name
    return orphans


def _is_old(name: str, *, now: dt.datetime) -> bool:
    try:
        return default_storage.get_modified_time(name) < now - MIN_AGE
    except FileNotFoundError:
        # Removed meanwhile.
        return False


def remove_orphans(*, now: dt.datetime, is_dry_run: bool = False, is_forced: bool = False) -> Orphans:
    """
    Remove files without a row, and let turns whose file is gone say that they have none. Return what was found.

    Where too much is missing for that to be true, nothing is touched unless it `is_forced`: raises DoubtfulOrphans. A
    folder that was not mounted for an hour would otherwise cost every recording. Leaves a row of what was found.
    """
    orphans = find_orphans(now=now)
    is_refused = bool(orphans.doubt) and not is_forced and not is_dry_run
    if not is_dry_run:
        StorageCheck.objects.create(
            checked_at=now,
            was_refused=is_refused,
            files=orphans.file_count,
            files_without_turn=len(orphans.files),
            turns=orphans.row_count,
            turns_without_file=len(orphans.turns),
        )
    if is_refused:
        logger.error("orphans are left alone: %s (manage.py remove_orphans --force)", orphans.doubt)
        raise DoubtfulOrphans(orphans)
    if not is_dry_run:
        remove_files(orphans.files)
        for pk, name in orphans.turns.items():
            # Unless it was given another one meanwhile.
            Turn.objects.filter(pk=pk, audio=name).update(audio="", audio_bytes=0)
    logger.info(
        "orphans%s: %d files (%d bytes), %d turns without their file",
        ", dry run" if is_dry_run else "",
        len(orphans.files),
        orphans.file_bytes,
        len(orphans.turns),
    )
    return orphans
