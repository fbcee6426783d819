"""The pages of voices. Their scripts load the data from the API."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe

from voices import services
from voices.models import Consent, VoiceProfile
from voices.recordings.quality import MAX_SPEECH_S, MIN_SPEECH_S
from voices.ui_strings import PREVIEW_SENTENCES, READ_ALOUD, VOICE_STRINGS

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.http import HttpRequest

#: A placeholder in URLs, which scripts replace with an id.
_ANY_ID = uuid.UUID(int=0)


@login_required
@never_cache
@ensure_csrf_cookie
@require_safe
def voice_list(request: HttpRequest) -> HttpResponse:
    """The list of own, shared and stock voices."""
    return render(request, "voices/list.html", _describe(request))


@login_required
@never_cache
@ensure_csrf_cookie
@require_safe
def new_voice(request: HttpRequest) -> HttpResponse:
    """Consent, recording, result. `?voice=<id>` continues at the result of a voice that is being built."""
    return render(request, "voices/new.html", _describe(request))


@login_required
@never_cache
@ensure_csrf_cookie
@require_safe
def voice_detail(request: HttpRequest, profile_id: uuid.UUID) -> HttpResponse:
    """One voice with its recordings; 404 for a user who may not use it."""
    profile = get_object_or_404(VoiceProfile.objects.visible_to(request.user).prefetch_related("jobs"), pk=profile_id)
    is_own = profile.owner_id == request.user.pk
    context = _describe(request, voiceId=str(profile.pk))
    consents = Consent.objects.of_voice(profile).oldest_first() if is_own else ()
    context |= {"profile": profile, "is_own": is_own, "consents": consents}
    return render(request, "voices/detail.html", context)


def _describe(request: HttpRequest, **facts: Any) -> dict[str, Any]:
    """Return the strings and the facts for the script of a page."""
    user: User = request.user  # type: ignore[assignment]  # login_required let nobody else in
    page = {
        "apiUrl": "/api/voice-profiles",
        "defaultUrl": "/api/voice-default",
        "consentUrl": "/api/voice-consent",
        "listUrl": reverse("voice_pages:list"),
        "newUrl": reverse("voice_pages:new"),
        "detailUrl": reverse("voice_pages:detail", args=[_ANY_ID]),
        "loginUrl": reverse("login"),
        "anyId": str(_ANY_ID),
        "mayShare": user.has_perm("voices.share_voiceprofile"),
        # Checked in the browser before an upload, and by the server again.
        "mostBytes": services.MAX_UPLOAD_BYTES,
        "shortestS": int(MIN_SPEECH_S),
        "longestS": int(MAX_SPEECH_S),
        "sentences": PREVIEW_SENTENCES,
        "readAloud": READ_ALOUD,
    }
    return {"ui_strings": VOICE_STRINGS, "page": page | facts}
