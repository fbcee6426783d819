"""The files of voices in the storage, local or S3, and what is left of them once they are deleted."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from django.utils import timezone

from avatar_site.lib.disk import is_disk_full
from avatar_site.lib.problems import ProblemError
from voices.models import VoiceProfile, profile_folder

if TYPE_CHECKING:
    from django.db.models.fields.files import FieldFile

logger = logging.getLogger(__name__)

#: A file is written before its row: one that is younger may still get one.
ORPHAN_AFTER = timedelta(minutes=10)
#: What a crash leaves behind is less than this; more, and more than this share of all, is a database from elsewhere.
FEW_ORPHANS = 10
MAX_ORPHANED_SHARE = 0.5


def write(field: FieldFile, content: bytes) -> None:
    """
    Write a new file and let the field name it; the row is yet to be saved. A file that fails leaves nothing behind.

    Raises ProblemError when the disk is full, OSError when the storage cannot be had.
    """
    # A name nobody else has. Known beforehand, so that what was written of it can be deleted.
    name = field.field.generate_filename(field.instance, "")
    try:
        name = field.storage.save(name, ContentFile(content), max_length=field.field.max_length)
    except BaseException as error:
        with suppress(OSError):
            field.storage.delete(name)
        if is_disk_full(error):
            raise ProblemError("storage_full") from error
        raise
    setattr(field.instance, field.field.attname, name)


def delete_or_leave(name: str | None) -> None:
    """Delete a file that no row names any more. Where that fails now, `delete_orphans` does it."""
    try:
        delete(name)
    except OSError:
        logger.exception("%s is left for later", name)


def delete(name: str | None) -> None:
    """Delete one file. One that is gone already is no error."""
    if name:
        default_storage.delete(name)


def delete_folder(profile: VoiceProfile) -> None:
    """Delete everything that lies in a voice's folder, whether a row names it or not."""
    _delete_folder(profile_folder(profile))


def delete_folder_if_empty(profile: VoiceProfile) -> None:
    folder = profile_folder(profile)
    if not list_files(folder):
        _delete_folder(folder)


def delete_folder_if_gone(profile: VoiceProfile) -> None:
    """Delete what was written for a voice that was deleted meanwhile."""
    if not VoiceProfile.objects.filter(pk=profile.pk).exists():
        delete_folder(profile)


def list_files(folder: str) -> list[str]:
    """Names of the files that lie in a folder; none if there is no folder."""
    try:
        return [f"{folder}/{name}" for name in default_storage.listdir(folder)[1]]
    except FileNotFoundError:
        return []


def list_profile_folders() -> Iterator[tuple[str, uuid.UUID | None]]:
    """Each folder of a voice that there is, and the voice's id (None: it is no id)."""
    for owner in _list_folders("voices"):
        for name in _list_folders(f"voices/{owner}"):
            try:
                yield f"voices/{owner}/{name}", uuid.UUID(name)
            except ValueError:
                yield f"voices/{owner}/{name}", None


def are_doubtful(orphans: int, *, of: int) -> bool:
    """Whether so many files without a row, among all there are, say rather that the database is another one's."""
    return orphans > FEW_ORPHANS and orphans > of * MAX_ORPHANED_SHARE


def delete_orphans(*, is_forced: bool = False) -> int:
    """
    Delete the folders of voices that have no row, and files of voices that no row names. Return how many files.

    They are left by a process that was killed between a file and its row. Where most of what there is would go, the
    database is taken for another one's, and nothing is deleted unless it `is_forced`.
    """
    folders = list(list_profile_folders())
    orphans: list[str] = []
    file_count = 0
    for folder, profile_id in folders:
        names = set(list_files(folder))
        known = _names_in_rows(profile_id) if profile_id else set()
        file_count += len(names)
        orphans += [name for name in names - known if _is_old(name)]
    if are_doubtful(len(orphans), of=file_count) and not is_forced:
        logger.error(
            "%d of the %d files of voices belong to no row, and are left alone: is this another database? "
            "(manage.py remove_orphans --force)",
            len(orphans),
            file_count,
        )
        return 0
    for name in orphans:
        logger.warning("deleting %s, which belongs to no row", name)
        delete(name)
    for folder, profile_id in folders:
        if not list_files(folder) and not (profile_id and VoiceProfile.objects.filter(pk=profile_id).exists()):
            _remove_empty(folder)
    return len(orphans)


def forget_deleted_rows() -> bool:
    """
    Have SQLite give up the copies of deleted rows in its write-ahead log. Return whether none are left.

    A reader in a long query keeps them: then it has to be done again. Rows themselves are overwritten when they
    are deleted (`secure_delete`). Connections are kept open, so that no last one that closes does it instead.
    """
    if connection.vendor != "sqlite":
        return True
    if connection.in_atomic_block:
        return False
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        is_busy, *_ = cursor.fetchone()
    return not is_busy


def _names_in_rows(profile_id: uuid.UUID) -> set[str]:
    profile = VoiceProfile.objects.filter(pk=profile_id).first()
    if profile is None:
        return set()
    return {
        profile.clip.name,
        *profile.recordings.values_list("audio", flat=True),
        *profile.previews.values_list("audio", flat=True),
    }


def _is_old(name: str) -> bool:
    try:
        return timezone.now() - default_storage.get_modified_time(name) > ORPHAN_AFTER
    except FileNotFoundError:
        return False


def _delete_folder(folder: str) -> None:
    for name in list_files(folder):
        default_storage.delete(name)
    _remove_empty(folder)


def _remove_empty(folder: str) -> None:
    """Remove a folder and its owner's, if nothing is left in them. A storage without folders has nothing to remove."""
    for each in (folder, folder.rpartition("/")[0]):
        try:
            default_storage.delete(each)
        except OSError:
            # Something lies in it, of another voice or written just now.
            return


def _list_folders(folder: str) -> list[str]:
    try:
        return default_storage.listdir(folder)[0]
    except FileNotFoundError:
        return []
