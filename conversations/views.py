"""The page for talking."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe

from conversations.models import Conversation
from conversations.words import WORDS
from voices.models import VoiceProfile
from voices.services import read_preference

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.http import HttpRequest

#: They stand in an address for the ids that a script will put there.
_ANY_ID = uuid.UUID(int=0)
_ANY_TURN_ID = uuid.UUID(int=1)


@login_required
@never_cache
@ensure_csrf_cookie
@require_safe
def new_call(request: HttpRequest) -> HttpResponse:
    """The call page, for a conversation that begins with its first words."""
    return _render_call(request, conversation=None)


@login_required
@never_cache
@ensure_csrf_cookie
@require_safe
def continued_call(request: HttpRequest, conversation_id: uuid.UUID) -> HttpResponse:
    """The call page with what was said so far. For everybody but its owner the conversation does not exist."""
    conversation = get_object_or_404(Conversation.objects.owned_by(request.user), pk=conversation_id)
    return _render_call(request, conversation=conversation)


def _render_call(request: HttpRequest, *, conversation: Conversation | None) -> HttpResponse:
    user: User = request.user  # type: ignore[assignment]  # login_required let nobody else in
    context = {
        "conversation": conversation,
        "turns": conversation.turns.in_order() if conversation else (),
        "voices": VoiceProfile.objects.usable_by(user).for_choosing(),
        "words": WORDS,
        "call": _describe_call(conversation, user),
    }
    return render(request, "conversations/call.html", context)


def _describe_call(conversation: Conversation | None, user: User) -> dict[str, Any]:
    """What the page's script has to know: addresses and defaults."""
    preference = read_preference(user=user)
    return {
        "conversationId": str(conversation.pk) if conversation else None,
        "anyId": str(_ANY_ID),
        "socketUrl": "/ws/chat",
        "statusUrl": reverse("operations:system-info"),
        "loginUrl": reverse("login"),
        "newUrl": reverse("conversations:new-call"),
        "conversationUrl": reverse("conversations:continued-call", args=[_ANY_ID]),
        "audioUrl": reverse("conversations_api:turn-audio", args=[_ANY_ID, _ANY_TURN_ID]),
        "anyTurnId": str(_ANY_TURN_ID),
        "pauseMs": settings.AVATAR_PAUSE_MS,
        "sensitivity": settings.AVATAR_SENSITIVITY,
        "voiceProfileId": str(preference.profile_id) if preference.profile_id else None,
        "quality": preference.quality,
        "voicesUrl": reverse("voice_pages:list"),
    }
