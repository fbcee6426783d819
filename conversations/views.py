"""The call page and the history page."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe

from conversations import queries
from conversations.history_query import HistoryQuery, read_id
from conversations.models import ANY_DELETED_VOICE, Conversation
from conversations.ui_strings import CALL_STRINGS, HISTORY_STRINGS
from voices.models import VoiceProfile
from voices.services import read_preference

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.http import HttpRequest

ENTRIES_A_PAGE = 20
PACES = ("0.75", "1", "1.25", "1.5", "2")
#: Days offered in the retention dialog; the API takes any.
RETENTION_CHOICES = (7, 30, 90, 365)

#: Placeholders in URLs, which scripts replace by ids.
_ANY_ID = uuid.UUID(int=0)
_ANY_TURN_ID = uuid.UUID(int=1)


@login_required
@never_cache
@ensure_csrf_cookie
@require_safe
def new_call(request: HttpRequest) -> HttpResponse:
    """The call page without a conversation: the first turn creates it."""
    return _render_call(request, conversation=None)


@login_required
@never_cache
@ensure_csrf_cookie
@require_safe
def continued_call(request: HttpRequest, conversation_id: uuid.UUID) -> HttpResponse:
    """The call page with the turns so far. Another person's conversation does not exist: 404."""
    conversation = get_object_or_404(Conversation.objects.owned_by(request.user), pk=conversation_id)
    # A turn to be replied to again may be an old one: what follows it is about to be superseded.
    return _render_call(request, conversation=conversation, around=read_id(request.GET.get("answer", "")))


@login_required
@never_cache
@ensure_csrf_cookie
@require_safe
def history(request: HttpRequest, conversation_id: uuid.UUID | None = None) -> HttpResponse:
    """The list of conversations, and one of them. Another person's conversation does not exist: 404."""
    user: User = request.user  # type: ignore[assignment]  # login_required let nobody else in
    query = HistoryQuery.read(request.GET.dict())
    found = queries.find_conversations(owner=user, wanted=query.wanted)
    page = Paginator(found, ENTRIES_A_PAGE).get_page(request.GET.get("page"))
    page.object_list = list(page.object_list)
    queries.add_matches(page.object_list, query.text)
    conversation, shown = None, queries.TurnPage([])
    if conversation_id is not None:
        conversation = get_object_or_404(Conversation.objects.owned_by(user), pk=conversation_id)
        shown = queries.find_turns(conversation, **query.place)
    context = {
        "query": query,
        "page": page,
        "voices": queries.find_voices(user),
        "any_deleted_voice": ANY_DELETED_VOICE,
        "conversation": conversation,
        "shown": shown,
        "turn_count": conversation.turns.count() if conversation else 0,
        "has_audio": any(turn.audio for turn in shown.turns),
        "paces": PACES,
        "retention_fields": (("audio_days", _("Recordings")), ("text_days", _("Texts, and all that belongs to them"))),
        "retention_choices": RETENTION_CHOICES,
        "ui_strings": HISTORY_STRINGS,
    }
    return render(request, "conversations/history.html", context)


def _render_call(
    request: HttpRequest, *, conversation: Conversation | None, around: uuid.UUID | None = None
) -> HttpResponse:
    user: User = request.user  # type: ignore[assignment]  # login_required let nobody else in
    shown = queries.find_turns(conversation, around=around) if conversation else queries.TurnPage([])
    context = {
        "conversation": conversation,
        "turns": shown.turns,
        "has_earlier": shown.has_earlier,
        "voices": VoiceProfile.objects.usable_by(user).for_choosing(),
        "ui_strings": CALL_STRINGS,
        "call": _describe_call(conversation, user),
    }
    return render(request, "conversations/call.html", context)


def _describe_call(conversation: Conversation | None, user: User) -> dict[str, Any]:
    """Return what the page's script needs: URLs and defaults."""
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
