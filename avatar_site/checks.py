"""Checks of settings that are each right and wrong together. What one value may be is checked where it is read."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from avatar_site.private_files import OTHERS


@register
def check_data_dir(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """The data folder holds the database, recordings and logs: it must be there, or be creatable, and writable."""
    folder = Path(settings.AVATAR_DATA_DIR)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return []
    return [
        Error(
            f"AVATAR_DATA_DIR={folder}: this process may not write there.",
            hint="Choose another folder, or give this user the right to write to it.",
            id="avatar.E001",
        )
    ]


@register
def check_system_prompt_fits(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """The system prompt is in front of every question; a long one leaves no room for the conversation."""
    if len(settings.AVATAR_SYSTEM_PROMPT) <= 2000:
        return []
    return [Error("AVATAR_SYSTEM_PROMPT: at most 2000 characters.", id="avatar.E002")]


@register
def check_every_session_has_engines(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Admission must not exceed the engines' capacity: each conversation needs a call of every engine."""
    sessions, calls = settings.AVATAR_MAX_SESSIONS, settings.AVATAR_INFERENCE_MAX_CALLS
    if sessions <= calls:
        return []
    return [
        Error(
            f"AVATAR_MAX_SESSIONS={sessions} lets in more people than AVATAR_INFERENCE_MAX_CALLS={calls} are answered.",
            hint=f"Set AVATAR_INFERENCE_MAX_CALLS to {sessions} or more, if the machine can bear it, "
            f"or AVATAR_MAX_SESSIONS to {calls} or fewer.",
            id="avatar.E003",
        )
    ]


@register(Tags.security, deploy=True)
def check_microphone_works(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Browsers give the microphone to pages over HTTPS and to pages of the same machine, to no others."""
    if settings.AVATAR_HTTPS or is_loopback(settings.AVATAR_HOST):
        return []
    return [
        Warning(
            f"AVATAR_HOST={settings.AVATAR_HOST}: other machines are served over plain HTTP.",
            hint="Their browsers refuse the microphone. Put an HTTPS proxy in front and set AVATAR_HTTPS=yes.",
            id="avatar.W001",
        )
    ]


@register
def check_backup_retention(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """What the retention removes is still in backups: where those are kept for longer, it promises too much."""
    return [
        Warning(
            f"{backup}={getattr(settings, backup)} keeps backups longer than {site}={getattr(settings, site)} keeps "
            f"{what}.",
            hint=f"What the retention removes stays in backups for so long. Lower {backup}, or tell people.",
            id="avatar.W002",
        )
        for backup, site, what in (
            ("AVATAR_BACKUP_AUDIO_DAYS", "AVATAR_RETENTION_AUDIO_DAYS", "recordings"),
            ("AVATAR_BACKUP_DATABASE_DAYS", "AVATAR_RETENTION_TEXT_DAYS", "what was said"),
        )
        if 0 < getattr(settings, site) < getattr(settings, backup)
    ]


@register
def check_backup_recipients(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """A backup that cannot be encrypted is not made: better known now than at night."""
    if not settings.AVATAR_BACKUP_RECIPIENTS:
        return []
    # Imported only where it is used: most processes need none of it.
    from avatar_site.operations.backups import packing

    try:
        packing.check_recipients(settings.AVATAR_BACKUP_RECIPIENTS)
    except packing.BadKey as error:
        return [Error(f"AVATAR_BACKUP_RECIPIENTS: {error}", id="avatar.E004")]
    return []


@register
def check_backup_target(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Whether the target that was chosen is one. It is not connected to, and the default is no choice."""
    if Path(settings.AVATAR_BACKUP_TARGET) == Path(settings.AVATAR_DATA_DIR) / "backups":
        return []
    from avatar_site.operations.backups import targets

    try:
        targets.open_target(settings.AVATAR_BACKUP_TARGET)
    except targets.BadTarget as error:
        return [Error(f"AVATAR_BACKUP_TARGET: {error}", id="avatar.E005")]
    return []


@register
def check_backup_identity(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """The private key of backups. It may be on a disk that is not there today: that does not stop the start."""
    if not settings.AVATAR_BACKUP_IDENTITY_FILE:
        return []
    from avatar_site.operations.backups import packing

    path = Path(settings.AVATAR_BACKUP_IDENTITY_FILE)
    try:
        packing.read_identities(path)
    except packing.BadKey as error:
        return [
            Warning(
                f"AVATAR_BACKUP_IDENTITY_FILE: {error}",
                hint="Encrypted backups cannot be verified or restored with it.",
                id="avatar.W003",
            )
        ]
    if path.stat().st_mode & OTHERS:
        return [
            Warning(
                f"AVATAR_BACKUP_IDENTITY_FILE={path}: other users of this machine may read the private key.",
                hint=f"chmod 600 {path}",
                id="avatar.W004",
            )
        ]
    return []


@register
def check_alert_emails(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Alerts that nobody is told of because half of the settings is missing."""
    if not settings.AVATAR_ALERT_EMAILS or settings.EMAIL_HOST:
        return []
    return [
        Error(
            "AVATAR_ALERT_EMAILS is set, and AVATAR_EMAIL_URL is not: alerts cannot be sent.",
            hint="Name a mail server, such as smtp+tls://user:password@host:587.",
            id="avatar.E006",
        )
    ]


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
