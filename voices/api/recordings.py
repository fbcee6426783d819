"""The recordings of a voice, and the consent that each needs."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from django.http import Http404, HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.parsers import MultiPartParser
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from avatar_site.lib.api_schema import refusals
from avatar_site.lib.http_ranges import AnyRenderer, respond_with_file
from voices import services
from voices.api.base import (
    AUDIO_REFUSALS,
    FILE_REFUSALS,
    NOT_FOUND,
    NOT_LOGGED_IN,
    STORAGE_AWAY,
    UPLOAD_REFUSALS,
    VoiceView,
)
from voices.api.requests import AddRecordingSerializer
from voices.api.serializers import (
    ConsentSerializer,
    RecordingSerializer,
)
from voices.consents import word_consent
from voices.models import Attestation, Recording

if TYPE_CHECKING:
    from rest_framework.request import Request


class VoiceConsents(VoiceView):
    @extend_schema(
        operation_id="voice_consents",
        summary="The consents, one of which is needed for a voice, in the language of the request",
        responses={200: ConsentSerializer(many=True)} | NOT_LOGGED_IN,
    )
    def get(self, request: Request) -> Response:
        return Response(
            [
                {"attestation": attestation, "text": text, "text_sha256": digest}
                for attestation in Attestation.values
                for text, digest in [word_consent(attestation)]
            ]
        )


class RecordingList(VoiceView):
    parser_classes = (MultiPartParser,)

    @extend_schema(
        operation_id="add_recording",
        summary="Add a recording of the same person; the voice is rebuilt from all of them",
        description="Consent is given with each recording.",
        request={"multipart/form-data": AddRecordingSerializer},
        responses={201: RecordingSerializer}
        | refusals("consent_required", "consent_invalid", "invalid", *AUDIO_REFUSALS)
        | NOT_FOUND
        | UPLOAD_REFUSALS
        | refusals("quota_exceeded", "too_many_recordings", "voice_too_large", "disabled", "deleting"),
    )
    def post(self, request: Request, profile_id: uuid.UUID) -> Response:
        profile = self.own(profile_id)
        given = self.read(AddRecordingSerializer)
        audio = given.validated_data["audio"].read()
        recording = services.add_recording(profile=profile, audio=audio, **given.read_consent())
        return Response(RecordingSerializer(recording).data, status=status.HTTP_201_CREATED)


class RecordingDetail(VoiceView):
    @extend_schema(
        operation_id="remove_recording",
        summary="Remove one of several recordings; the voice is rebuilt from the others",
        responses={204: None} | NOT_FOUND | refusals("last_recording", "disabled", "deleting") | STORAGE_AWAY,
    )
    def delete(self, request: Request, profile_id: uuid.UUID, recording_id: uuid.UUID) -> Response:
        services.remove_recording(recording=self.own_recording(profile_id, recording_id))
        return Response(status=status.HTTP_204_NO_CONTENT)


_AUDIO_FILE = {
    (200, "audio/flac"): OpenApiTypes.BINARY,
    (206, "audio/flac"): OpenApiTypes.BINARY,
}


class RecordingAudio(VoiceView):
    renderer_classes = (JSONRenderer, AnyRenderer)

    @extend_schema(
        operation_id="recording_audio",
        summary="A recording as FLAC, for its owner; ranges are served",
        responses=_AUDIO_FILE | FILE_REFUSALS,
    )
    def get(self, request: Request, profile_id: uuid.UUID, recording_id: uuid.UUID) -> HttpResponse:
        recording = self.own_recording(profile_id, recording_id)
        return _respond_with_recording(recording, request)


class VoiceProfileAudio(VoiceView):
    renderer_classes = (JSONRenderer, AnyRenderer)

    @extend_schema(
        operation_id="voice_profile_audio",
        summary="Its first recording as FLAC, for its owner; ranges are served",
        responses=_AUDIO_FILE | FILE_REFUSALS,
    )
    def get(self, request: Request, profile_id: uuid.UUID) -> HttpResponse:
        recording = Recording.objects.filter(profile__owner=self.user, profile_id=profile_id).oldest_first().first()
        if recording is None:
            raise Http404
        return _respond_with_recording(recording, request)


def _respond_with_recording(recording: Recording, request: Request) -> HttpResponse:
    return respond_with_file(
        recording.audio,
        content_type="audio/flac",
        filename=f"{recording.pk}.flac",
        wanted=request.headers.get("Range", ""),
    )
