"""Limits of request bodies per URL and login, and the response to a body that exceeds them."""

from __future__ import annotations

import json
import logging
from importlib import import_module

from channels.db import database_sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
from django.http import HttpRequest
from django.http.cookie import parse_cookie
from django.urls import Resolver404, resolve
from django.utils import translation

from avatar_site.lib.problems import describe, status_of
from avatar_site.web.limits import Limits
from avatar_site.web.server import Head, Refusal
from voices.services import MAX_ARCHIVE_BYTES, MAX_UPLOAD_BYTES

logger = logging.getLogger(__name__)

#: The fields around an upload, and their boundaries.
ENVELOPE_BYTES = 64 * 1024
_RECORDING = (MAX_UPLOAD_BYTES + ENVELOPE_BYTES, "audio_too_large", "audio")
_ARCHIVE = (MAX_ARCHIVE_BYTES + ENVELOPE_BYTES, "archive_too_large", "file")
#: By view name: the maximum size in bytes, and the problem code and field of a larger body.
_UPLOADS = {
    f"voices_api:{prefix}{name}": upload
    for prefix in ("", "singular-")
    for name, upload in (("list", _RECORDING), ("recordings", _RECORDING), ("import", _ARCHIVE))
}

#: Descriptors for other things than connections: database, logs, engines, storage, files being played.
RESERVED_FILES = 100


class SiteGate:
    """The gate of this site: large bodies only with a login, and only at URLs that accept files."""

    def __init__(self) -> None:
        self.max_anonymous_bytes = settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 0

    def decide_max_bytes(self, head: Head) -> int:
        max_bytes, _, _ = self._find_upload(head)
        return max_bytes

    async def is_logged_in(self, head: Head) -> bool:
        key = parse_cookie(head.cookie).get(settings.SESSION_COOKIE_NAME)
        return bool(key) and await database_sync_to_async(_is_logged_in)(key)

    def refuse_anonymous(self, head: Head) -> Refusal:
        return _describe_refusal(head, "not_logged_in")

    def refuse_size(self, head: Head) -> Refusal:
        _, code, field = self._find_upload(head)
        return _describe_refusal(head, code, field)

    def _find_upload(self, head: Head) -> tuple[int, str, str]:
        ordinary = (self.max_anonymous_bytes, "request_too_large", "")
        try:
            return _UPLOADS.get(resolve(head.path).view_name, ordinary)
        except Resolver404:
            return ordinary


def read_limits(*, open_files: int) -> Limits:
    """Read the settings. Each connection may need two descriptors: the socket, and a body on disk."""
    possible = max(10, (open_files - RESERVED_FILES) // 2)
    if possible < settings.AVATAR_MAX_CONNECTIONS:
        logger.warning(
            "AVATAR_MAX_CONNECTIONS=%d: only %d are possible with %d open files; raise the hard limit (ulimit -Hn)",
            settings.AVATAR_MAX_CONNECTIONS,
            possible,
            open_files,
        )
    return Limits(
        max_connections=min(possible, settings.AVATAR_MAX_CONNECTIONS),
        max_connections_per_address=settings.AVATAR_MAX_CONNECTIONS_PER_ADDRESS,
    )


def _is_logged_in(session_key: str) -> bool:
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    return bool(get_user(request).is_authenticated)


def _describe_refusal(head: Head, code: str, field: str = "") -> Refusal:
    request = HttpRequest()
    request.COOKIES = parse_cookie(head.cookie)
    request.META["HTTP_ACCEPT_LANGUAGE"] = head.accept_language
    with translation.override(translation.get_language_from_request(request)):
        body = describe(code, field=field)
    if not head.path.startswith("/api/"):
        return Refusal(status_of(code), "text/plain; charset=utf-8", f"{body['detail']}\n".encode())
    return Refusal(status_of(code), "application/json", json.dumps(body, ensure_ascii=False).encode())
