"""What can go wrong with the machinery that everything here rests on."""

from __future__ import annotations


class StorageUnavailable(OSError):
    """The storage of files cannot be had now, or refuses. Not that a file is missing, which is FileNotFoundError."""
