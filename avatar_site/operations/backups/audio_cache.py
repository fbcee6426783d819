"""Remembers what audio files contain and which objects of targets hold it, so that a backup reads only new ones."""

from __future__ import annotations

import gzip
import logging
import os
import threading
import zlib
from collections.abc import Collection
from pathlib import Path

import msgspec

from avatar_site.operations.backups.manifest import SHA256, StoredObject

logger = logging.getLogger(__name__)

FORMAT = 1
#: The cache is read into memory; at 300 bytes a file this is a million files.
MAX_BYTES = 300 << 20


class CachedFile(msgspec.Struct, frozen=True, array_like=True):
    """The SHA-256 of a file in the storage, and the size and time that tell whether it has changed."""

    size_bytes: int
    version: str
    content_sha256: str


class _Content(msgspec.Struct):
    format: int = FORMAT
    files: dict[str, CachedFile] = {}
    #: By the address of a target, then by key.
    objects: dict[str, dict[str, StoredObject]] = {}


class AudioCache:
    """
    A file that may be lost or damaged: then everything is read again.

    It has the names of existing files only: the next backup drops those of deleted files.
    Safe to use from several threads.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._content = _read(path)

    def find_digest(self, name: str, *, size_bytes: int, version: str) -> str | None:
        """Return the SHA-256 of a file that has not changed since; None if that is unknown."""
        file = self._content.files.get(name)
        return file.content_sha256 if file and (file.size_bytes, file.version) == (size_bytes, version) else None

    def find_object(self, address: str, key: str) -> StoredObject | None:
        """Return the object that a backup, or a killed one, stored in a target under this key."""
        return self._content.objects.get(address, {}).get(key)

    def add_file(self, name: str, file: CachedFile) -> None:
        with self._lock:
            self._content.files[name] = file

    def add_object(self, address: str, stored: StoredObject) -> None:
        with self._lock:
            self._content.objects.setdefault(address, {})[stored.key] = stored

    def forget_others(self, names: Collection[str]) -> None:
        """Add these files, and the objects with their contents."""
        content = self._content
        kept = set(names)
        content.files = {name: file for name, file in content.files.items() if name in kept}
        digests = {file.content_sha256 for file in content.files.values()}
        content.objects = {
            address: {key: each for key, each in objects.items() if each.content_sha256 in digests}
            for address, objects in content.objects.items()
        }

    def write(self) -> None:
        """Write it, whole or not at all. That it cannot be written is logged: the next backup takes longer."""
        with self._lock:
            data = msgspec.json.encode(self._content)
        partial = self._path.with_name(f".{self._path.name}.part")
        try:
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                # The fastest level: digests, which are most of it, do not compress.
                file.write(gzip.compress(data, compresslevel=1))
            partial.replace(self._path)
        except OSError:
            logger.exception("what was read is not remembered: the next backup reads all audio again")
            partial.unlink(missing_ok=True)


def _read(path: Path) -> _Content:
    try:
        with path.open("rb") as file:
            data = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(file.read(MAX_BYTES), MAX_BYTES)
        content = msgspec.json.decode(data, type=_Content)
    except FileNotFoundError:
        return _Content()
    except (OSError, EOFError, zlib.error, msgspec.MsgspecError) as error:
        logger.warning("%s cannot be read, and all audio is read instead: %s", path, error)
        return _Content()
    if content.format != FORMAT or not all(SHA256.fullmatch(file.content_sha256) for file in content.files.values()):
        return _Content()
    return content
