"""What was said, for the one who said it."""

from __future__ import annotations

import re
import uuid

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_safe

from conversations.models import Turn

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@require_safe
def turn_audio(request: HttpRequest, conversation_id: uuid.UUID, turn_id: uuid.UUID) -> HttpResponse:
    """A turn's audio as FLAC. For everybody but its owner it does not exist."""
    turns = Turn.objects.owned_by(request.user).filter(conversation_id=conversation_id).exclude(audio="")
    turn = get_object_or_404(turns, pk=turn_id)
    try:
        with turn.audio.open("rb") as file:
            # At most a minute or so of speech. A response that streams would be read to its end here anyway (ASGI).
            audio = file.read()
    except FileNotFoundError:
        raise Http404 from None
    response = _part_of(audio, request.headers.get("Range", ""))
    response.headers["Content-Type"] = "audio/flac"
    response.headers["Accept-Ranges"] = "bytes"
    response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    response.headers["Content-Disposition"] = f'inline; filename="{turn.pk}.flac"'
    return response


def _part_of(content: bytes, wanted: str) -> HttpResponse:
    """The bytes a Range header asks for (players seek with it); all of them if it asks for nothing we understand."""
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
