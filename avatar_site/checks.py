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


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
