"""A voice as one file: export and import."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from django.http import HttpResponse
from django.utils.http import content_disposition_header
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.parsers import MultiPartParser
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from avatar_site.lib.api_schema import refusals
from avatar_site.lib.http_ranges import AnyRenderer
from voices import services
from voices.api.base import (
    AUDIO_REFUSALS,
    NOT_FOUND,
    NOT_LOGGED_IN,
    PROFILE,
    STORAGE_AWAY,
    UPLOAD_REFUSALS,
    VoiceView,
)
from voices.api.requests import ImportSerializer

if TYPE_CHECKING:
    from rest_framework.request import Request


class VoiceProfileExport(VoiceView):
    renderer_classes = (JSONRenderer, AnyRenderer)

    @extend_schema(
        operation_id="export_voice_profile",
        summary="The voice as one file",
        description="A zip of profile.json, the recordings and the reference clip.",
        responses={(200, "application/zip"): OpenApiTypes.BINARY}
        | NOT_FOUND
        | refusals("recording_missing")
        | STORAGE_AWAY,
    )
    def get(self, request: Request, profile_id: uuid.UUID) -> HttpResponse:
        profile = self.own(profile_id)
        response = HttpResponse(services.export_voice_profile(profile=profile), content_type="application/zip")
        response.headers["Content-Disposition"] = content_disposition_header(True, f"{profile.name}.avatar-voice.zip")
        response.headers["Cache-Control"] = "private, no-store"
        return response


class VoiceProfileImport(VoiceView):
    parser_classes = (MultiPartParser,)

    @extend_schema(
        operation_id="import_voice_profile",
        summary="Create a voice from an exported one",
        description="It needs a consent of its own, and the voice is rebuilt from its recordings.",
        request={"multipart/form-data": ImportSerializer},
        responses={201: PROFILE}
        | refusals(
            *("consent_required", "consent_invalid", "archive_unreadable", "name_required", "name_too_long", "invalid"),
            *AUDIO_REFUSALS,
        )
        | NOT_LOGGED_IN
        | UPLOAD_REFUSALS
        | refusals("audio_too_large", "archive_too_large")
        | refusals("quota_exceeded", "voice_too_large"),
    )
    def post(self, request: Request) -> Response:
        given = self.read(ImportSerializer)
        file = given.validated_data["file"].read()
        profile = services.import_voice_profile(owner=self.user, file=file, **given.read_consent())
        return Response(self.describe_fresh(profile), status=status.HTTP_201_CREATED)
