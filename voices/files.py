"""The files of voices: a folder each, with recordings, clip and previews."""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

from django.core.cache import cache

from avatar_site.lib import stored_files
from avatar_site.lib.disk import is_disk_full
from avatar_site.lib.problems import ProblemError
from avatar_site.lib.stored_files import list_files, list_folders, remove_empty_folders, remove_folder
from voices.models import Preview, Recording, VoiceProfile, profile_folder

if TYPE_CHECKING:
    from django.db.models.fields.files import FieldFile

logger = logging.getLogger(__name__)

ROOT = "voices"
#: The key in the cache, with files without a row and all files, of a last sweep that was refused.
_DOUBTFUL_SWEEP = "voices.files.doubtful_sweep"
#: There is a sweep each night.
_REMEMBERED_FOR_S = 7 * 24 * 60 * 60


def write(file: FieldFile, content: bytes) -> None:
    """Write a new file, as `write_file`. Raises ProblemError if the disk is full, OSError if the storage is away."""
    try:
        stored_files.write_file(file, content)
    except OSError as error:
        if is_disk_full(error):
            raise ProblemError("storage_full") from error
        raise


def delete_folder(profile: VoiceProfile) -> None:
    """Delete everything in a voice's folder, whether a row names it or not. Raises OSError."""
    remove_folder(profile_folder(profile))


def delete_folder_if_empty(profile: VoiceProfile) -> None:
    folder = profile_folder(profile)
    if not list(list_files(folder)):
        remove_empty_folders(folder)


def delete_folder_if_gone(profile: VoiceProfile) -> None:
    """Delete what a job wrote for a voice that has been deleted since."""
    if not VoiceProfile.objects.filter(pk=profile.pk).exists():
        delete_folder(profile)


def delete_orphans(*, now: dt.datetime, is_forced: bool = False) -> int:
    """
    Delete files of voices that no row names, and empty folders of voices that have no row. Return how many files.

    Where most files would go, the database is taken for another one's, and nothing is deleted unless it `is_forced`.
    Raises SweepRefused where a guard forbids sweeps, forced or not.
    """
    stored_files.check_guards()
    sweep = stored_files.find_orphans(ROOT, find_named=_find_named, now=now)
    if sweep.is_doubtful and not is_forced:
        logger.error(
            "%d of the %d files of voices belong to no row, and are left alone: is this another database? "
            "(manage.py remove_orphans --force)",
            len(sweep.files),
            sweep.file_count,
        )
        cache.set(_DOUBTFUL_SWEEP, (len(sweep.files), sweep.file_count), _REMEMBERED_FOR_S)
        return 0
    cache.delete(_DOUBTFUL_SWEEP)
    for name in sweep.files:
        logger.warning("deleting %s, which belongs to no row", name)
        stored_files.delete_file(name)
    for folder, profile_id in _list_profile_folders():
        is_gone = profile_id is None or not VoiceProfile.objects.filter(pk=profile_id).exists()
        if is_gone and not list(list_files(folder)):
            remove_empty_folders(folder)
    return len(sweep.files)


def read_doubtful_sweep() -> tuple[int, int] | None:
    """Return how many files the last sweep found without a row, and of how many, if it was refused for that."""
    found: tuple[int, int] | None = cache.get(_DOUBTFUL_SWEEP)
    return found


def _find_named(names: list[str]) -> set[str]:
    return {
        *VoiceProfile.objects.filter(clip__in=names).values_list("clip", flat=True),
        *Recording.objects.filter(audio__in=names).values_list("audio", flat=True),
        *Preview.objects.filter(audio__in=names).values_list("audio", flat=True),
    }


def _list_profile_folders() -> Iterator[tuple[str, uuid.UUID | None]]:
    """Yield the folder of each voice, and its id; None where the name of the folder is no id."""
    for owner in list_folders(ROOT):
        for name in list_folders(f"{ROOT}/{owner}"):
            try:
                yield f"{ROOT}/{owner}/{name}", uuid.UUID(name)
            except ValueError:
                yield f"{ROOT}/{owner}/{name}", None
