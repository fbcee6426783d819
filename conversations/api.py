"""What was said, for the one who said it."""

from __future__ import annotations

import uuid

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_safe

from conversations.models import Turn
from voices.byte_ranges import respond_with_audio


@require_safe
def turn_audio(request: HttpRequest, conversation_id: uuid.UUID, turn_id: uuid.UUID) -> HttpResponse:
    """A turn's audio as FLAC. For everybody but its owner it does not exist."""
    turns = Turn.objects.owned_by(request.user).filter(conversation_id=conversation_id).exclude(audio="")
    turn = get_object_or_404(turns, pk=turn_id)
    try:
        with turn.audio.open("rb") as file:
            audio = file.read()
    except FileNotFoundError:
        raise Http404 from None
    wanted = request.headers.get("Range", "")
    return respond_with_audio(audio, content_type="audio/flac", filename=f"{turn.pk}.flac", wanted=wanted)
