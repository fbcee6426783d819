"""Parts of a file, for players that seek."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from django.http import HttpResponse, JsonResponse
from rest_framework.renderers import BaseRenderer, JSONRenderer

from voices.wording import word_problem

#: Of a length that a file may have: more digits are no range.
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def respond_with_audio(content: bytes, *, content_type: str, filename: str, wanted: str) -> HttpResponse:
    """
    An audio file, or the part of it that the Range header `wanted` asks for.

    Whole in memory: it is a minute or so of speech, and a response that streams would be read to its end here anyway
    (ASGI).
    """
    response = take_range(content, wanted)
    if response.status_code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        response.headers["Content-Type"] = content_type
    response.headers["Accept-Ranges"] = "bytes"
    # A browser's copy would outlive what was deleted.
    response.headers["Cache-Control"] = "private, no-store"
    response.headers["Content-Disposition"] = f'inline; filename="{filename}"'
    return response


def take_range(content: bytes, wanted: str) -> HttpResponse:
    """The bytes a Range header asks for; all of them if it asks for nothing we understand."""
    match = _RANGE.fullmatch(wanted.strip())
    if match is None or match.group(1) == match.group(2) == "":
        return HttpResponse(content)
    first, last = match.groups()
    if first:
        start, end = int(first), min(int(last), len(content) - 1) if last else len(content) - 1
    else:
        start, end = max(len(content) - int(last), 0), len(content) - 1
    if start > end:
        refusal = {"code": "range_invalid", "detail": word_problem("range_invalid")}
        return JsonResponse(refusal, status=416, headers={"Content-Range": f"bytes */{len(content)}"})
    headers = {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
    return HttpResponse(content[start : end + 1], status=206, headers=headers)


class AnyRenderer(BaseRenderer):
    """Lets a player ask for any type: audio is answered by plain responses, refusals by JSON."""

    media_type = "*/*"
    format = "audio"

    def render(self, data: Any, *args: Any, **kwargs: Any) -> bytes:
        return bytes(JSONRenderer().render(data))
