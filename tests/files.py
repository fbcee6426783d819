"""Files that a test finds on the disk."""

from __future__ import annotations

from pathlib import Path


def list_files(folder: Path) -> list[Path]:
    """Return all files under a folder, sorted; none if there is no folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
