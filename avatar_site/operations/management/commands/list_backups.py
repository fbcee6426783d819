"""Translates `manage.py list_backups`."""

from __future__ import annotations

import datetime as dt
import json
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, no_translations
from django.template.defaultfilters import filesizeformat
from django.utils import timezone

from avatar_site.operations.backups import targets
from avatar_site.operations.backups.catalogue import ListedBackup, list_backups

HEADINGS = ("NAME", "AGE", "PARTS", "SIZE", "VERSION", "ENCRYPTED", "VERIFIED")


class Command(BaseCommand):
    help = (
        "List the backups in a target, newest first: what is in them, and whether restoring them has been tried. Audio "
        "is shared between backups; its size is what a restore would write."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--to", metavar="TARGET", help="a folder, or s3://bucket/prefix (default: AVATAR_BACKUP_TARGET)"
        )
        parser.add_argument("--json", action="store_true", help="print a JSON list, for other programs")

    @no_translations
    def handle(self, *args: Any, **options: Any) -> None:
        try:
            target = targets.open_target(settings.AVATAR_BACKUP_TARGET if options["to"] is None else options["to"])
            backups = list_backups(target)
        except (targets.BadTarget, OSError) as error:
            raise CommandError(str(error)) from error
        now = timezone.now()
        if options["json"]:
            described = [describe(backup, now=now) for backup in backups]
            self.stdout.write(json.dumps(described, ensure_ascii=False, indent=1))
            return
        if risk := target.describe_risk():
            self.stderr.write(self.style.WARNING(risk))
        if not backups:
            self.stdout.write(f"There are no backups in {target.address}.")
            return
        for line in make_table([HEADINGS, *(make_row(backup, now=now) for backup in backups)]):
            self.stdout.write(line)


def describe(backup: ListedBackup, *, now: dt.datetime) -> dict[str, object]:
    """Return a backup as JSON has it. Unknown values, those of a damaged manifest, are null."""
    manifest, record = backup.manifest, backup.record
    audio = manifest.audio if manifest else None
    return {
        "name": backup.name,
        "taken_at": backup.taken_at.isoformat(),
        "age_s": round((now - backup.taken_at).total_seconds()),
        "reason": manifest.reason if manifest else None,
        "parts": list_parts(backup) if manifest else None,
        "database_bytes": manifest.database.size_bytes if manifest and manifest.database else None,
        "audio_bytes": audio.content_bytes if audio else None,
        "audio_files": audio.file_count if audio else None,
        "audio_files_missing": len(audio.missing) if audio else None,
        "version": manifest.version if manifest else None,
        "build": manifest.build if manifest else None,
        "is_encrypted": manifest.is_encrypted if manifest else None,
        "is_verified": backup.is_verified,
        "verified_at": record.verified_at.isoformat() if record else None,
        "is_checksum_only": record.is_checksum_only if record else None,
        "problem": find_problem(backup),
    }


def make_row(backup: ListedBackup, *, now: dt.datetime) -> Sequence[str]:
    manifest = backup.manifest
    age = describe_age(now - backup.taken_at)
    if manifest is None:
        return (backup.name, age, "?", "?", "?", "?", describe_state(backup, now=now))
    sizes = []
    if manifest.database:
        sizes.append(filesizeformat(manifest.database.size_bytes))
    if manifest.audio:
        sizes.append(filesizeformat(manifest.audio.content_bytes))
    return (
        backup.name,
        age,
        " + ".join(list_parts(backup)) or "none",
        " + ".join(sizes).replace("\xa0", " "),
        manifest.version,
        "yes" if manifest.is_encrypted else "no",
        describe_state(backup, now=now),
    )


def list_parts(backup: ListedBackup) -> list[str]:
    return ["database"] * backup.has_database + ["audio"] * backup.has_audio


def find_problem(backup: ListedBackup) -> str:
    return backup.problem or (backup.record.problem if backup.record else "")


def describe_state(backup: ListedBackup, *, now: dt.datetime) -> str:
    if problem := find_problem(backup):
        return f"DAMAGED: {problem}"
    if backup.record is None:
        return "not verified"
    how = "verified" if backup.is_verified else "checksums compared"
    return f"{how} {describe_age(now - backup.record.verified_at)} ago"


def describe_age(age: dt.timedelta) -> str:
    """As the largest whole unit: 3 days, 5 hours, 0 minutes. A clock that was set back gives 0 minutes."""
    minutes = max(0, int(age.total_seconds() // 60))
    for unit, size in (("day", 24 * 60), ("hour", 60), ("minute", 1)):
        if minutes >= size:
            return f"{minutes // size} {unit}{'s' if minutes // size > 1 else ''}"
    return "0 minutes"


def make_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with columns as wide as their longest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
