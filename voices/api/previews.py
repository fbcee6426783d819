"""Sentences spoken in a voice on request."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from avatar_site.lib.api_schema import refusals
from avatar_site.lib.http_ranges import AnyRenderer, respond_with_file
from avatar_site.lib.parsers import JSONParser
from voices import services
from voices.api.base import (
    FILE_REFUSALS,
    NOT_FOUND,
    VoiceView,
)
from voices.api.requests import PreviewRequestSerializer
from voices.api.serializers import (
    PreviewSerializer,
)
from voices.models import Preview

if TYPE_CHECKING:
    from rest_framework.request import Request


class VoiceProfilePreview(VoiceView):
    parser_classes = (JSONParser,)

    @extend_schema(
        operation_id="preview_voice_profile",
        summary="Hear a sentence in it",
        description=(
            "Synthesised once and stored; again if memory was short. The file at `audio_url` says in its INFO list "
            "that it is synthetic."
        ),
        request=PreviewRequestSerializer,
        responses={200: PreviewSerializer}
        | refusals("text_required", "text_too_long", "quality_unknown", "invalid")
        | NOT_FOUND
        | refusals("not_ready", "disabled", "deleting")
        | refusals("inference_failed")
        | refusals("inference_unavailable", "inference_busy", "storage_unavailable")
        | refusals("storage_full"),
    )
    def post(self, request: Request, profile_id: uuid.UUID) -> Response:
        profile = self.visible(profile_id)
        wanted = self.read(PreviewRequestSerializer).validated_data
        preview, is_cached = services.preview(profile=profile, user=self.user, **wanted)
        return Response(
            {
                "audio_url": reverse("voices_api:preview-audio", args=[profile_id, preview.pk]),
                "duration_ms": preview.duration_ms,
                "quality": preview.made_with,
                "is_cached": is_cached,
            }
        )


class PreviewAudio(VoiceView):
    renderer_classes = (JSONRenderer, AnyRenderer)

    @extend_schema(
        operation_id="preview_audio",
        summary="A preview as WAV, for the user who requested it; ranges are served",
        responses={(200, "audio/wav"): OpenApiTypes.BINARY, (206, "audio/wav"): OpenApiTypes.BINARY}
        | FILE_REFUSALS
        | refusals("not_ready", "disabled", "deleting"),
    )
    def get(self, request: Request, profile_id: uuid.UUID, preview_id: uuid.UUID) -> HttpResponse:
        previews = Preview.objects.filter(requested_by=self.user, profile_id=profile_id)
        preview = get_object_or_404(previews, pk=preview_id)
        # Not served once the voice is not shared any more, or disabled.
        services.check_speakable(self.visible(profile_id))
        return respond_with_file(
            preview.audio,
            content_type="audio/wav",
            filename=f"{preview.pk}.wav",
            wanted=request.headers.get("Range", ""),
        )
