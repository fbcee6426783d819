"""Files in Django's storage, a folder or a bucket."""

from __future__ import annotations


class StorageUnavailable(OSError):
    """The storage cannot be reached, or refuses. Not raised for a missing file, which is FileNotFoundError."""
