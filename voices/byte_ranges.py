"""Parts of a file, for players that seek."""

from __future__ import annotations

import re

from django.http import HttpResponse

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


#: A browser's copies would outlive what was deleted.
KEEP_NO_COPY = "private, no-store"
KEEP = "private, max-age=31536000, immutable"


def respond_with_audio(
    content: bytes, *, content_type: str, filename: str, wanted: str, cache_control: str = KEEP_NO_COPY
) -> HttpResponse:
    """
    An audio file, or the part of it that the Range header `wanted` asks for.

    Whole in memory: it is a minute or so of speech, and a response that streams would be read to its end here anyway
    (ASGI).
    """
    response = _part_of(content, wanted)
    response.headers["Content-Type"] = content_type
    response.headers["Accept-Ranges"] = "bytes"
    response.headers["Cache-Control"] = cache_control
    response.headers["Content-Disposition"] = f'inline; filename="{filename}"'
    return response


def _part_of(content: bytes, wanted: str) -> HttpResponse:
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
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{len(content)}"})
    headers = {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
    return HttpResponse(content[start : end + 1], status=206, headers=headers)
