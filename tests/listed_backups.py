"""Backups as a list shows them: manifests, and files that hold nothing of a site, in the target of the settings."""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import tempfile
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from avatar_site.operations.backups import catalogue, targets
from avatar_site.operations.backups.manifest import AudioPart, Manifest, Member, VerificationRecord, encode, make_name

CONTENT = b"what everybody said" * 10_000


def write_backup(*, hours_ago: float = 1, problem: str | None = "", is_encrypted: bool = False) -> str:
    """Write a backup into the target. `problem` is that of its verification, None if there was none."""
    target = targets.open_target(settings.AVATAR_BACKUP_TARGET)
    taken_at = timezone.now() - dt.timedelta(hours=hours_ago)
    name = make_name(taken_at)
    suffix = ".age" if is_encrypted else ""
    no_objects: bytes = encode([])

    def store(key: str, stored: bytes = CONTENT, content: bytes = CONTENT) -> Member:
        with tempfile.NamedTemporaryFile() as source:
            source.write(stored)
            source.flush()
            target.write(key, Path(source.name))
        return Member(
            key=key,
            size_bytes=len(stored),
            sha256=hashlib.sha256(stored).hexdigest(),
            content_bytes=len(content),
            content_sha256=hashlib.sha256(content).hexdigest(),
        )

    audio = AudioPart(
        index=store(f"audio/{name}.index.json.gz{suffix}"),
        objects=store(f"audio/{name}.objects.json.gz", gzip.compress(no_objects), no_objects),
        file_count=2312,
        content_bytes=3 * 2**30,
    )
    made = Manifest(
        name=name,
        taken_at=taken_at,
        reason="nightly",
        version="1.4.0",
        build="abcdef",
        schema={},
        vendor="sqlite",
        row_counts={},
        database=store(f"db/{name}.sqlite3.gz{suffix}"),
        audio=audio,
        recipients=("age1something",) if is_encrypted else (),
    )
    catalogue.write_manifest(target, made)
    if problem is not None:
        record = VerificationRecord(name=name, verified_at=timezone.now(), took_s=4.2, problem=problem)
        catalogue.write_record(target, record)
    return name
