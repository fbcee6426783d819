"""Which AVATAR this is: its version, its build, and the newest migration of each app."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import avatar_site

ROOT = Path(__file__).resolve().parent.parent
#: The code of the product; tests and docs do not change its build.
CODE = (
    *("avatar_site", "conversations", "inference", "realtime", "voices"),
    *("locale", "static", "templates", "requirements", "manage.py", "Makefile"),
)
#: Made from the code, in its folders.
_MADE_SUFFIXES = (".pyc", ".pyo", ".mo")
_ID_LENGTH = 12
_GIT_TIMEOUT_S = 20


def read_version() -> str:
    return avatar_site.__version__


@functools.cache
def read_build() -> str:
    """
    Return what identifies this code: a commit, with `-dirty` if files differ from it; or a digest of the code.

    An archive of `git archive` has its commit in it. Fit for a file name. Asked of git, or read from all files, once a
    process: call it early in one that runs for long, whose files an upgrade replaces.
    """
    return identify(ROOT)


def identify(root: Path) -> str:
    """Return the build of the checkout or archive at `root`; see `read_build`."""
    return _ask_git(root) or _read_archive_id(root / "avatar_site" / "build.txt") or compute_digest(root)


def describe() -> dict[str, Any]:
    """Return version, build and schema heads, as JSON can hold them. May ask git, see `read_build`."""
    return {"version": read_version(), "build": read_build(), "schema": read_schema_heads()}


def read_schema_heads() -> dict[str, str]:
    """Return the newest migration of each app that this code has. Needs Django, reads no database."""
    from django.db.migrations.loader import MigrationLoader

    return _choose_heads(MigrationLoader(None, ignore_no_migrations=True).graph.leaf_nodes())


def read_applied_heads() -> dict[str, str]:
    """Return the newest migration of each app that the database has: of a newer version, too. Empty without tables."""
    from django.db import connection
    from django.db.migrations.recorder import MigrationRecorder

    return _choose_heads(MigrationRecorder(connection).applied_migrations())


def compute_digest(root: Path) -> str:
    """Return `digest-` and the beginning of a SHA-256 over the names and contents of the code."""
    digest = hashlib.sha256()
    for path in sorted(_list_code(root)):
        name = path.relative_to(root).as_posix().encode()
        content = path.read_bytes()
        digest.update(b"%d %s %d %s" % (len(name), name, len(content), content))
    return f"digest-{digest.hexdigest()[:_ID_LENGTH]}"


def _choose_heads(migrations: Iterable[tuple[str, str]]) -> dict[str, str]:
    # Numbered names: of an app with two branches, the higher.
    return dict(sorted(migrations))


def _ask_git(root: Path) -> str:
    """Return an empty string if this is no checkout, or git is missing or refuses (another user's folder)."""
    if not (root / ".git").exists():
        return ""
    try:
        commit = _run_git(root, "rev-parse", "--verify", "HEAD").strip()
        changes = _run_git(root, "status", "--porcelain", "--", *CODE).strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit[:_ID_LENGTH] + ("-dirty" if changes else "")


def _run_git(root: Path, *arguments: str) -> str:
    # A hook's environment names another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(  # noqa: S603 — arguments are ours
        ["git", "--no-optional-locks", "-C", str(root), *arguments],  # noqa: S607 — the operator's git
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=_GIT_TIMEOUT_S,
    ).stdout


def _read_archive_id(path: Path) -> str:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return "" if text.startswith("$") else text[:_ID_LENGTH]


def _list_code(root: Path) -> Iterator[Path]:
    for name in CODE:
        top = root / name
        for path in (top, *top.rglob("*")):
            if path.is_file() and path.suffix not in _MADE_SUFFIXES:
                yield path
