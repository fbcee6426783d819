"""System information for users."""

from __future__ import annotations

import asyncio
import dataclasses
from http import HTTPStatus

from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from avatar_site import version
from avatar_site.operations.status import get_prober


@never_cache
@require_safe
async def system_info(request: HttpRequest) -> JsonResponse:
    """Report version, build, profile, limits, and each role's engine with its model, device, load time and memory."""
    user = await request.auser()
    if not user.is_authenticated:
        return JsonResponse({"code": "not_logged_in", "detail": _("Please log in.")}, status=HTTPStatus.UNAUTHORIZED)
    report = get_prober().snapshot.inference
    inference: dict[str, object] = {"is_ready": report.is_ready, "reason": report.reason, "roles": []}
    if report.status is not None:
        inference |= dataclasses.asdict(report.status)
    return JsonResponse(
        {
            **await asyncio.to_thread(version.describe),
            "profile": settings.AVATAR_PROFILE,
            "limits": {
                "max_sessions": settings.AVATAR_MAX_SESSIONS,
                "max_utterance_bytes": settings.AVATAR_MAX_UTTERANCE_BYTES,
                "max_utterance_chunks": settings.AVATAR_MAX_UTTERANCE_CHUNKS,
                "max_utterance_s": settings.AVATAR_MAX_UTTERANCE_S,
            },
            "inference": inference,
        }
    )
