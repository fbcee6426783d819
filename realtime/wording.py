"""What users are told when something goes wrong, in their language."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any, cast

from django.http import HttpRequest
from django.http.cookie import parse_cookie
from django.utils import translation
from django.utils.translation import gettext, gettext_noop

from realtime.messages import ErrorCode

SENTENCES = {
    ErrorCode.SERVER_FULL: gettext_noop("All lines are busy. Please try again in a moment."),
    ErrorCode.TOO_MANY_CALLS: gettext_noop(
        "You are in as many conversations as one person can have at once. Please end one of them first."
    ),
    ErrorCode.ALREADY_PROCESSING: gettext_noop("I am still answering. Stop the answer first."),
    ErrorCode.NO_AUDIO_DATA: gettext_noop("No sound arrived. Please check your microphone."),
    ErrorCode.BUFFER_LIMIT_EXCEEDED: gettext_noop("That was too long. Please say it in shorter pieces."),
    ErrorCode.UNSUPPORTED_FORMAT: gettext_noop("This kind of audio cannot be read. WAV and WebM can."),
    ErrorCode.VOICE_GONE: gettext_noop("The voice you chose is not available any more. Another one speaks now."),
    ErrorCode.FELL_BEHIND: gettext_noop(
        "I cannot keep up just now: answers come late, or are left out. Please try again in a moment."
    ),
    ErrorCode.NOT_KEPT: gettext_noop("Not everything of this conversation can be kept just now."),
    ErrorCode.KEPT_AGAIN: gettext_noop("Keeping works again. What you say is kept."),
    ErrorCode.CONVERSATION_GONE: gettext_noop(
        "This conversation has been deleted. You can go on talking, but nothing of it is kept any more."
    ),
    ErrorCode.VALIDATION_ERROR: gettext_noop("The browser sent something that was not understood."),
    ErrorCode.JSON_DECODE_ERROR: gettext_noop("The browser sent something that could not be read."),
    ErrorCode.UNKNOWN_MESSAGE_TYPE: gettext_noop("The browser sent something unknown. Please reload the page."),
    ErrorCode.PROCESSING_ERROR: gettext_noop("Something went wrong with this answer. Please try again."),
    ErrorCode.INFERENCE_UNAVAILABLE: gettext_noop(
        "The voice models cannot be reached just now. Please try again soon."
    ),
    ErrorCode.FATAL_ERROR: gettext_noop("Something went wrong and the call has ended. Please call again."),
}


IDLE_WARNING = gettext_noop("Nobody has said anything for a while. The call ends soon unless you go on.")


def find_language(headers: list[tuple[bytes, bytes]], *, wanted: str | None = None) -> str:
    """Return the language of a handshake: the `wanted` one if there is such, else its cookie's, else the browser's."""
    if wanted is not None:
        with contextlib.suppress(LookupError):
            return translation.get_supported_language_variant(wanted)
    values = {name.lower(): value.decode("latin-1") for name, value in headers}
    request = SimpleNamespace(
        COOKIES=parse_cookie(values.get(b"cookie", "")),
        META={"HTTP_ACCEPT_LANGUAGE": values.get(b"accept-language", "")},
    )
    return translation.get_language_from_request(cast(HttpRequest, cast(Any, request)))


def word_idle_warning(language: str) -> str:
    with translation.override(language):
        return gettext(IDLE_WARNING)


def word_error(code: ErrorCode, language: str) -> str:
    with translation.override(language):
        return gettext(SENTENCES[code])
