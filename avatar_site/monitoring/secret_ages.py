"""
Remembers since when each secret is used, in a file of the data folder: in no backup, and without the secrets.

A secret is recognised by its HMAC under a random key in that file, which only the site's user can read.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import logging
import os
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from django.conf import settings

logger = logging.getLogger(__name__)

FILE_NAME = "secrets-seen.json"
#: The entry that has the key of the others.
_KEY = "key"


def read(*, now: dt.datetime) -> dict[str, dt.datetime]:
    """
    Return since when each secret is used, by the name of its setting.

    One that is new or changed is remembered as of now; one that was generated, as of its file. A folder that cannot be
    written to is logged.
    """
    path = Path(settings.AVATAR_DATA_DIR) / FILE_NAME
    seen = _load(path)
    key = seen.get(_KEY, {}).get("mark") or secrets.token_hex(32)
    generated_at = _find_generated_at()
    result: dict[str, dict[str, str]] = {}
    for name, secret in list_secrets().items():
        mark = hmac.new(key.encode(), f"{name}:{secret}".encode(), hashlib.sha256).hexdigest()
        if seen.get(name, {}).get("mark") == mark:
            result[name] = dict(seen[name])
        else:
            since = generated_at if name == "AVATAR_SECRET_KEY" and generated_at else now
            result[name] = {"mark": mark, "since": since.isoformat()}
    entries = {**result, _KEY: seen.get(_KEY) or {"mark": key, "since": now.isoformat()}}
    if entries != seen:
        try:
            _save(path, entries)
        except OSError as error:
            logger.warning("the age of secrets is not remembered: %s", error)
    return {name: dt.datetime.fromisoformat(entry["since"]) for name, entry in result.items()}


def list_secrets() -> dict[str, str]:
    """Return the secrets that are set, by the name of their setting. A database's own are its administrator's."""
    found = {
        "AVATAR_SECRET_KEY": settings.SECRET_KEY,
        "AVATAR_INFERENCE_SECRET": settings.AVATAR_INFERENCE_SECRET,
        "AVATAR_BACKUP_S3_SECRET_ACCESS_KEY": settings.AVATAR_BACKUP_S3["secret_key"],
        "AVATAR_S3_SECRET_ACCESS_KEY": settings.STORAGES["default"].get("OPTIONS", {}).get("secret_key"),
        "AVATAR_METRICS_TOKEN": settings.AVATAR_METRICS_TOKEN,
        "AVATAR_ALERT_WEBHOOK_SECRET": settings.AVATAR_ALERT_WEBHOOK_SECRET,
    }
    return {name: secret for name, secret in found.items() if secret}


def _find_generated_at() -> dt.datetime | None:
    path = Path(settings.AVATAR_DATA_DIR) / "secret_key"
    try:
        if path.read_text(encoding="ascii").strip() != settings.SECRET_KEY:
            return None
        return dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC)
    except (OSError, ValueError):
        return None


def _load(path: Path) -> dict[str, dict[str, str]]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): {"mark": str(entry["mark"]), "since": dt.datetime.fromisoformat(entry["since"]).isoformat()}
            for name, entry in values.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _save(path: Path, entries: Mapping[str, Mapping[str, str]]) -> None:
    fd, draft = tempfile.mkstemp(prefix=f".{FILE_NAME}-", dir=path.parent)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(entries, file)
        Path(draft).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(draft).unlink()
        raise
