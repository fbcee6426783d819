"""HTTP range requests, for players that seek."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.http import Http404, HttpResponse, JsonResponse
from rest_framework.renderers import BaseRenderer, JSONRenderer

from avatar_site.lib.problems import describe

if TYPE_CHECKING:
    from django.db.models.fields.files import FieldFile

#: More digits than a file's length can have are no range.
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def respond_with_file(
    file: FieldFile, *, content_type: str, filename: str, wanted: str, is_download: bool = False
) -> HttpResponse:
    """Return a stored file, as `respond_with_audio`. Raises Http404 if it is gone, OSError if the storage is away."""
    try:
        with file.open("rb") as opened:
            content = opened.read()
    except FileNotFoundError:
        raise Http404 from None
    return respond_with_audio(
        content, content_type=content_type, filename=filename, wanted=wanted, is_download=is_download
    )


def respond_with_audio(
    content: bytes, *, content_type: str, filename: str, wanted: str, is_download: bool = False
) -> HttpResponse:
    """
    Return an audio file, or the part of it that the Range header `wanted` asks for.

    Takes the whole file: it is a minute or so of speech, and under ASGI a synchronous streaming response would be read
    to its end anyway.
    """
    response = respond_with_range(content, wanted)
    if response.status_code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        response.headers["Content-Type"] = content_type
    response.headers["Accept-Ranges"] = "bytes"
    # A browser's copy would outlive the deletion of the file.
    response.headers["Cache-Control"] = "private, no-store"
    response.headers["Content-Disposition"] = f'{"attachment" if is_download else "inline"}; filename="{filename}"'
    return response


def respond_with_range(content: bytes, wanted: str) -> HttpResponse:
    """Return the bytes that a Range header asks for; all of them if it is none or cannot be parsed."""
    match = _RANGE.fullmatch(wanted.strip())
    if match is None or match.group(1) == match.group(2) == "":
        return HttpResponse(content)
    first, last = match.groups()
    if first:
        start, end = int(first), min(int(last), len(content) - 1) if last else len(content) - 1
    else:
        start, end = max(len(content) - int(last), 0), len(content) - 1
    if start > end:
        refusal = describe("range_invalid")
        return JsonResponse(refusal, status=416, headers={"Content-Range": f"bytes */{len(content)}"})
    headers = {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
    return HttpResponse(content[start : end + 1], status=206, headers=headers)


class AnyRenderer(BaseRenderer):
    """Accepts any media type that a player asks for: audio is a plain response, a refusal is JSON."""

    media_type = "*/*"
    format = "audio"

    def render(self, data: Any, *args: Any, **kwargs: Any) -> bytes:
        return bytes(JSONRenderer().render(data))
