"""Base of the API views of voices: lookups by owner, responses, and refusals for the schema."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, TypeVar

from django.http import Http404
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiExample, OpenApiResponse
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from avatar_site.lib.api_schema import refusals
from avatar_site.lib.problems import ProblemError
from voices import services
from voices.api.serializers import (
    VoiceProfileSerializer,
)
from voices.models import Recording, VoiceProfile

if TYPE_CHECKING:
    from django.contrib.auth.models import User


NOT_LOGGED_IN = refusals("not_logged_in")
NOT_FOUND = NOT_LOGGED_IN | refusals("not_found")
AUDIO_REFUSALS = (
    *("audio_required", "audio_unsupported", "audio_damaged", "audio_too_short", "audio_too_long"),
    *("audio_silent", "audio_clipped", "audio_noisy"),
)
STORAGE_AWAY = refusals("storage_unavailable")
FILE_REFUSALS = NOT_FOUND | refusals("range_invalid") | STORAGE_AWAY
UPLOAD_REFUSALS = refusals("audio_too_large") | refusals("quota_exceeded") | STORAGE_AWAY | refusals("storage_full")
_EXAMPLE = {
    "id": "0d5a8f9e-4f0c-4a0a-9a57-1a7a2c8b6e11",
    "name": "我的聲音",
    "language": "zh",
    "gender": "",
    "kind": "matched",
    "state": "ready",
    "progress": 1.0,
    "error": None,
    "similarity": 0.71,
    "fitting": {"state": "none", "progress": 0.0, "similarity": None},
    "version": 1,
    "is_own": True,
    "is_shared": False,
    "is_default": True,
    "is_stock": False,
    "qualities": ["fast"],
    "recordings": [
        {
            "id": "8c1d2f52-7f10-4a4e-8a43-0a7a3ef2b4c3",
            "duration_s": 16.2,
            "speech_s": 13.9,
            "snr_db": 38.5,
            "clipped_share": 0.0,
            "speaker_count": 1,
            "transcript": "今天天氣很好，我想去公園散步。",
            "size_bytes": 482113,
            "created_at": "2026-11-24T15:21:06+08:00",
            "warnings": [],
        }
    ],
    "size_bytes": 731209,
    "created_at": "2026-11-24T15:21:06+08:00",
    "last_used_at": None,
}
PROFILE = OpenApiResponse(VoiceProfileSerializer, examples=[OpenApiExample("a voice of one's own", value=_EXAMPLE)])


RequestSerializer = TypeVar("RequestSerializer", bound=Serializer[Any])


class VoiceView(APIView):
    """A view with lookups of voices that the user may see or change."""

    @property
    def user(self) -> User:
        return self.request.user  # type: ignore[return-value]  # IsAuthenticated requires a login

    def visible(self, profile_id: uuid.UUID) -> VoiceProfile:
        return get_object_or_404(VoiceProfile.objects.visible_to(self.user), pk=profile_id)

    def own(self, profile_id: uuid.UUID) -> VoiceProfile:
        """Return a voice of the user. Raises ProblemError for a stock voice, Http404 for those of others."""
        profile = self.visible(profile_id)
        if profile.is_stock:
            raise ProblemError("stock_voice")
        if not profile.is_owned_by(self.user):
            raise Http404
        return profile

    def own_recording(self, profile_id: uuid.UUID, recording_id: uuid.UUID) -> Recording:
        recordings = Recording.objects.filter(profile__owner=self.user, profile_id=profile_id)
        return get_object_or_404(recordings.select_related("profile__owner"), pk=recording_id)

    def describe(self, *profiles: VoiceProfile) -> list[Any]:
        context = {"user": self.user, "default_id": services.read_preference(user=self.user).profile_id}
        return list(VoiceProfileSerializer(profiles, many=True, context=context).data)

    def describe_fresh(self, profile: VoiceProfile) -> Any:
        (fresh,) = VoiceProfile.objects.filter(pk=profile.pk).with_size().prefetch_related("jobs", "recordings")
        return self.describe(fresh)[0]

    def read(self, serializer: type[RequestSerializer]) -> RequestSerializer:
        """Return the validated request. Raises ProblemError; ValidationError for a body that is no object."""
        request = serializer(data=self.request.data)
        request.is_valid(raise_exception=True)
        return request
