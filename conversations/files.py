"""The files of turns in the storage: removing them, and finding those that belong to no row."""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from django.core.files.storage import default_storage

from conversations.models import AUDIO_ROOT, Turn

logger = logging.getLogger(__name__)

#: A file is written before its row: one this young may be about to get it.
MIN_AGE = dt.timedelta(hours=1)
BATCH = 500


def remove_files(names: Iterable[str]) -> list[str]:
    """
    Remove files, and the folders that are empty then. Return those that are gone.

    One that cannot be removed is logged; what has no row any more is found again by `remove_orphans`.
    """
    removed = []
    folders = set()
    for name in names:
        try:
            default_storage.delete(name)
        except OSError:
            logger.exception("could not remove %s", name)
            continue
        removed.append(name)
        folders.add(PurePosixPath(name).parent)
    for folder in folders:
        for path in (folder, folder.parent):
            _remove_empty_folder(path)
    return removed


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
    """What lies in the storage without a row, and turns whose file is gone."""

    files: list[str] = field(default_factory=list)
    file_bytes: int = 0
    turns: list[uuid.UUID] = field(default_factory=list)


def find_orphans(*, now: dt.datetime) -> Orphans:
    """Look at every file and every row. Files younger than an hour are passed over."""
    orphans = Orphans()
    files = _list_files(AUDIO_ROOT)
    while batch := [name for _, name in zip(range(BATCH), files, strict=False)]:
        kept = set(Turn.objects.filter(audio__in=batch).values_list("audio", flat=True))
        for name in batch:
            if name in kept or not _is_old(name, now=now):
                continue
            orphans.files.append(name)
            orphans.file_bytes += default_storage.size(name)
    rows = Turn.objects.exclude(audio="").order_by("pk").values_list("pk", "audio")
    for pk, name in rows.iterator(chunk_size=BATCH):
        if not default_storage.exists(name):
            orphans.turns.append(pk)
    return orphans


def _is_old(name: str, *, now: dt.datetime) -> bool:
    try:
        return default_storage.get_modified_time(name) < now - MIN_AGE
    except FileNotFoundError:
        # Removed meanwhile.
        return False


def _list_files(folder: str) -> Iterator[str]:
    try:
        folders, files = default_storage.listdir(folder)
    except FileNotFoundError:
        return
    for name in files:
        yield f"{folder}/{name}"
    for name in folders:
        yield from _list_files(f"{folder}/{name}")


def remove_orphans(*, now: dt.datetime, is_dry_run: bool = False) -> Orphans:
    """Remove files without a row, and let turns whose file is gone say that they have none. Return what was found."""
    orphans = find_orphans(now=now)
    if not is_dry_run:
        remove_files(orphans.files)
        for start in range(0, len(orphans.turns), BATCH):
            rows = Turn.objects.filter(pk__in=orphans.turns[start : start + BATCH])
            rows.update(audio="", audio_bytes=0)
    logger.info(
        "orphans%s: %d files (%d bytes), %d turns without their file",
        ", dry run" if is_dry_run else "",
        len(orphans.files),
        orphans.file_bytes,
        len(orphans.turns),
    )
    return orphans
