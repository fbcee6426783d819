"""Sentences of a call for its user, in the language of the page."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any, cast

from django.http import HttpRequest
from django.http.cookie import parse_cookie
from django.utils import translation
from django.utils.translation import gettext, gettext_noop

from avatar_site.lib.problems import sentence_of
from realtime.messages import ErrorCode

IDLE_WARNING = gettext_noop("Nobody has said anything for a while. The call ends soon unless you go on.")


def negotiate_language(headers: list[tuple[bytes, bytes]], *, wanted: str | None = None) -> str:
    """Return the language of a handshake: `wanted` if it is supported, else the cookie's, else the browser's."""
    if wanted is not None:
        with contextlib.suppress(LookupError):
            return translation.get_supported_language_variant(wanted)
    values = {name.lower(): value.decode("latin-1") for name, value in headers}
    request = SimpleNamespace(
        COOKIES=parse_cookie(values.get(b"cookie", "")),
        META={"HTTP_ACCEPT_LANGUAGE": values.get(b"accept-language", "")},
    )
    return translation.get_language_from_request(cast(HttpRequest, cast(Any, request)))


def translate_idle_warning(language: str) -> str:
    with translation.override(language):
        return gettext(IDLE_WARNING)


def translate_error(code: ErrorCode, language: str) -> str:
    """Return the sentence of an error, from the table of problems."""
    with translation.override(language):
        return sentence_of(code)
