"""Voices over HTTP. Another person's voice does not exist: 404."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

from django.db.models import prefetch_related_objects
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.http import content_disposition_header
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import status
from rest_framework.pagination import PageNumberPagination
from rest_framework.parsers import MultiPartParser
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.views import APIView

from avatar_site.lib import http_ranges
from avatar_site.lib.api_schema import refusals
from avatar_site.lib.http_ranges import AnyRenderer
from avatar_site.lib.parsers import JSONParser
from avatar_site.lib.problems import ProblemError
from voices import services
from voices.archive import MAX_ARCHIVE_BYTES
from voices.consents import word_consent
from voices.models import Attestation, Preview, Recording, VoiceProfile
from voices.serializers import (
    AddRecordingSerializer,
    ChangeSerializer,
    ConsentSerializer,
    CreateSerializer,
    ImportSerializer,
    PreferenceChangeSerializer,
    PreferenceSerializer,
    PreviewRequestSerializer,
    PreviewSerializer,
    RecordingSerializer,
    StatusSerializer,
    VoiceProfileSerializer,
    describe_status,
)

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.core.files.base import File
    from django.db.models.fields.files import FieldFile
    from rest_framework.request import Request

    from voices.models import VoiceProfileQuerySet

#: The fields around an upload, and their boundaries.
ENVELOPE_BYTES = 64 * 1024
_NUMBER = re.compile(r"[0-9]{1,18}")


_NOT_LOGGED_IN = refusals("not_logged_in")
_NOT_FOUND = _NOT_LOGGED_IN | refusals("not_found")
_AUDIO_REFUSALS = (
    *("audio_required", "audio_unsupported", "audio_damaged", "audio_too_short", "audio_too_long"),
    *("audio_silent", "audio_clipped", "audio_noisy"),
)
_STORAGE_AWAY = refusals("storage_unavailable")
_FILE_REFUSALS = _NOT_FOUND | refusals("range_invalid") | _STORAGE_AWAY
_UPLOAD_REFUSALS = refusals("audio_too_large") | refusals("quota_exceeded") | _STORAGE_AWAY | refusals("storage_full")
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
_PROFILE = OpenApiResponse(VoiceProfileSerializer, examples=[OpenApiExample("a voice of one's own", value=_EXAMPLE)])


class VoicePages(PageNumberPagination):
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200


def respond_with_file(audio: FieldFile, request: Request, *, content_type: str, filename: str) -> HttpResponse:
    wanted = request.headers.get("Range", "")
    return http_ranges.respond_with_file(audio, content_type=content_type, filename=filename, wanted=wanted)


class VoiceView(APIView):
    """What all views of voices need: who asks, and which voice is meant."""

    @property
    def user(self) -> User:
        return self.request.user  # type: ignore[return-value]  # IsAuthenticated let nobody else in

    def visible(self, profile_id: uuid.UUID) -> VoiceProfile:
        return get_object_or_404(VoiceProfile.objects.visible_to(self.user), pk=profile_id)

    def own(self, profile_id: uuid.UUID) -> VoiceProfile:
        """Return a voice that the user may change. A stock voice or a shared one exists, and may not: ProblemError."""
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

    def describe_anew(self, profile: VoiceProfile) -> Any:
        (fresh,) = VoiceProfile.objects.filter(pk=profile.pk).with_size().prefetch_related("jobs", "recordings")
        return self.describe(fresh)[0]

    def read_upload(
        self, field: str, *, most_bytes: int = services.MAX_UPLOAD_BYTES, too_large: str = "audio_too_large"
    ) -> bytes:
        """The bytes of an upload. Raises ProblemError when it is missing, empty or too large."""
        length = self.request.headers.get("Content-Length", "0")
        if _NUMBER.fullmatch(length) and int(length) > most_bytes + ENVELOPE_BYTES:
            raise ProblemError(too_large, field=field)
        upload: File[bytes] | None = self.request.FILES.get(field)
        if upload is None:
            raise ProblemError("audio_required", field=field)
        if upload.size and upload.size > most_bytes:
            raise ProblemError(too_large, field=field)
        return upload.read()

    def read_consent(self) -> dict[str, str]:
        """What is declared, and in which words. Raises ProblemError: nothing more is read without it."""
        attestation = self.read_text("consent_attestation")
        services.check_consent(attestation)
        return {"attestation": attestation, "consent_text_sha256": self.read_text("consent_text_sha256")}

    def read_text(self, field: str) -> str:
        data = self.request.data
        value = data.get(field, "") if isinstance(data, dict) else ""
        return value.strip() if isinstance(value, str) else ""

    def read_boolean(self, field: str) -> bool:
        """Raises ProblemError for anything else: "false" would be true."""
        data = self.request.data
        value = data.get(field) if isinstance(data, dict) else None
        if not isinstance(value, bool):
            raise ProblemError("invalid", field=field)
        return value


class VoiceProfileList(VoiceView):
    parser_classes = (MultiPartParser,)
    # Read by the schema: without it, its answer would be an array.
    pagination_class = VoicePages

    @extend_schema(
        operation_id="list_voice_profiles",
        summary="The voices one can see, newest first",
        parameters=[
            OpenApiParameter("page", int),
            OpenApiParameter("page_size", int, description="50 unless told, at most 200."),
            OpenApiParameter("scope", str, enum=["own", "shared", "stock"]),
        ],
        responses={200: VoiceProfileSerializer(many=True)} | _NOT_LOGGED_IN | refusals("not_found"),
    )
    def get(self, request: Request) -> Response:
        pages = self.pagination_class()
        page = pages.paginate_queryset(self._find(request.query_params.get("scope", "")), request, view=self) or []
        return pages.get_paginated_response(self.describe(*page))

    def _find(self, scope: str) -> VoiceProfileQuerySet:
        voices = VoiceProfile.objects.visible_to(self.user)
        if scope == "own":
            voices = voices.owned_by(self.user)
        elif scope == "shared":
            voices = voices.filter(owner__isnull=False).exclude(owner_id=self.user.pk)
        elif scope == "stock":
            voices = voices.filter(owner__isnull=True)
        return voices.with_size().newest_first().prefetch_related("jobs", "recordings")

    @extend_schema(
        operation_id="create_voice_profile",
        summary="Make a voice from a recording",
        request={"multipart/form-data": CreateSerializer},
        responses={201: _PROFILE}
        | refusals(
            "consent_required",
            "consent_invalid",
            "name_required",
            "name_too_long",
            "language_unknown",
            "invalid",
            *_AUDIO_REFUSALS,
        )
        | _NOT_LOGGED_IN
        | _UPLOAD_REFUSALS,
    )
    def post(self, request: Request) -> Response:
        consent = self.read_consent()
        profile = services.create_voice_profile(
            owner=self.user,
            name=self.read_text("name"),
            audio=self.read_upload("audio"),
            **consent,
            language=self.read_text("language"),
        )
        return Response(self.describe_anew(profile), status=status.HTTP_201_CREATED)


class VoiceProfileDetail(VoiceView):
    parser_classes = (JSONParser,)

    @extend_schema(operation_id="retrieve_voice_profile", summary="One voice", responses={200: _PROFILE} | _NOT_FOUND)
    def get(self, request: Request, profile_id: uuid.UUID) -> Response:
        return Response(self.describe_anew(self.visible(profile_id)))

    @extend_schema(
        operation_id="change_voice_profile",
        summary="Rename it, say its language, share it with everybody",
        description=(
            "Another language has the nearest voice sought anew. Sharing is for operators; its owner may stop it."
        ),
        request=ChangeSerializer,
        responses={200: _PROFILE}
        | refusals("name_required", "name_too_long", "language_unknown", "invalid")
        | refusals("not_logged_in", "operators_only", "stock_voice")
        | refusals("not_found")
        | refusals("disabled", "deleting"),
    )
    def patch(self, request: Request, profile_id: uuid.UUID) -> Response:
        wanted = request.data if isinstance(request.data, dict) else {}
        profile = services.change_voice_profile(
            profile=self.own(profile_id),
            user=self.user,
            name=self.read_text("name") if "name" in wanted else None,
            language=self.read_text("language") if "language" in wanted else None,
            is_shared=self.read_boolean("is_shared") if "is_shared" in wanted else None,
        )
        return Response(self.describe_anew(profile))

    @extend_schema(
        operation_id="delete_voice_profile",
        summary="Delete a voice and everything made of it, at once and for good",
        description="Conversations keep their words, and their audio for as long as audio is kept.",
        responses={204: None}
        | refusals("not_logged_in", "stock_voice")
        | refusals("not_found")
        | refusals("deletion_unfinished"),
    )
    def delete(self, request: Request, profile_id: uuid.UUID) -> Response:
        services.delete_voice_profile(profile=self.own(profile_id))
        return Response(status=status.HTTP_204_NO_CONTENT)


class VoiceProfileStatus(VoiceView):
    @extend_schema(
        operation_id="voice_profile_status",
        summary="How far its making and its fitting are",
        responses={200: StatusSerializer} | _NOT_FOUND,
    )
    def get(self, request: Request, profile_id: uuid.UUID) -> Response:
        profile = self.visible(profile_id)
        prefetch_related_objects([profile], "jobs")
        return Response(describe_status(profile, is_own=profile.is_owned_by(self.user)))


class VoiceProfileRetry(VoiceView):
    @extend_schema(
        operation_id="retry_voice_profile",
        summary="Make a voice once more whose making has failed",
        request=None,
        responses={202: _PROFILE} | _NOT_FOUND | refusals("not_failed", "disabled", "deleting"),
    )
    def post(self, request: Request, profile_id: uuid.UUID) -> Response:
        profile = self.own(profile_id)
        services.retry(profile=profile)
        return Response(self.describe_anew(profile), status=status.HTTP_202_ACCEPTED)


class VoiceProfileDefault(VoiceView):
    @extend_schema(
        operation_id="choose_default_voice",
        summary="Be answered in this voice from now on",
        request=None,
        responses={204: None} | _NOT_FOUND | refusals("not_ready", "disabled", "deleting"),
    )
    def post(self, request: Request, profile_id: uuid.UUID) -> Response:
        profile = self.visible(profile_id)
        services.check_speakable(profile)
        services.choose_default(user=self.user, profile=profile)
        return Response(status=status.HTTP_204_NO_CONTENT)


class VoiceDefault(VoiceView):
    """What the user prefers: a voice, and how well it is to be spoken."""

    parser_classes = (JSONParser,)

    @extend_schema(
        operation_id="voice_default",
        summary="The preferred voice and quality",
        responses={200: PreferenceSerializer} | _NOT_LOGGED_IN,
    )
    def get(self, request: Request) -> Response:
        preference = services.read_preference(user=self.user)
        return Response({"voice_profile_id": preference.profile_id, "quality": preference.quality})

    @extend_schema(
        operation_id="choose_quality",
        summary="Prefer a quality",
        request=PreferenceChangeSerializer,
        responses={204: None} | refusals("quality_unknown") | _NOT_LOGGED_IN,
    )
    def patch(self, request: Request) -> Response:
        services.choose_quality(user=self.user, quality=self.read_text("quality"))
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(
        operation_id="forget_default_voice",
        summary="Be answered in the voice that the language asks for",
        responses={204: None} | _NOT_LOGGED_IN,
    )
    def delete(self, request: Request) -> Response:
        services.choose_default(user=self.user, profile=None)
        return Response(status=status.HTTP_204_NO_CONTENT)


class VoiceConsents(VoiceView):
    @extend_schema(
        operation_id="voice_consents",
        summary="The declarations one of which is needed to make a voice, in the request's language",
        responses={200: ConsentSerializer(many=True)} | _NOT_LOGGED_IN,
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
        summary="Add a recording of the same person; the voice is made anew from all of them",
        description="Consent is given with each recording.",
        request={"multipart/form-data": AddRecordingSerializer},
        responses={201: RecordingSerializer}
        | refusals("consent_required", "consent_invalid", *_AUDIO_REFUSALS)
        | _NOT_FOUND
        | _UPLOAD_REFUSALS
        | refusals("quota_exceeded", "too_many_recordings", "voice_too_large", "disabled", "deleting"),
    )
    def post(self, request: Request, profile_id: uuid.UUID) -> Response:
        profile = self.own(profile_id)
        consent = self.read_consent()
        recording = services.add_recording(profile=profile, audio=self.read_upload("audio"), **consent)
        return Response(RecordingSerializer(recording).data, status=status.HTTP_201_CREATED)


class RecordingDetail(VoiceView):
    @extend_schema(
        operation_id="remove_recording",
        summary="Remove one of several recordings; the voice is made anew from the others",
        responses={204: None} | _NOT_FOUND | refusals("last_recording", "disabled", "deleting") | _STORAGE_AWAY,
    )
    def delete(self, request: Request, profile_id: uuid.UUID, recording_id: uuid.UUID) -> Response:
        services.remove_recording(recording=self.own_recording(profile_id, recording_id))
        return Response(status=status.HTTP_204_NO_CONTENT)


class VoiceProfilePreview(VoiceView):
    parser_classes = (JSONParser,)

    @extend_schema(
        operation_id="preview_voice_profile",
        summary="Hear a sentence in it",
        description=(
            "Spoken once and kept; where memory was short, spoken anew. The file at `audio_url` says in its INFO list "
            "that it is synthetic."
        ),
        request=PreviewRequestSerializer,
        responses={200: PreviewSerializer}
        | refusals("text_required", "text_too_long", "quality_unknown", "invalid")
        | _NOT_FOUND
        | refusals("not_ready", "disabled", "deleting")
        | refusals("inference_failed")
        | refusals("inference_unavailable", "inference_busy", "storage_unavailable")
        | refusals("storage_full"),
    )
    def post(self, request: Request, profile_id: uuid.UUID) -> Response:
        preview, is_cached = services.preview(
            profile=self.visible(profile_id),
            user=self.user,
            text=self.read_text("text"),
            quality=self.read_text("quality"),
        )
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
        summary="A preview as WAV, for whoever asked for it; ranges are served",
        responses={(200, "audio/wav"): OpenApiTypes.BINARY, (206, "audio/wav"): OpenApiTypes.BINARY}
        | _FILE_REFUSALS
        | refusals("not_ready", "disabled", "deleting"),
    )
    def get(self, request: Request, profile_id: uuid.UUID, preview_id: uuid.UUID) -> HttpResponse:
        previews = Preview.objects.filter(requested_by=self.user, profile_id=profile_id)
        preview = get_object_or_404(previews, pk=preview_id)
        # Neither what is not shared any more nor what is disabled is heard again.
        services.check_speakable(self.visible(profile_id))
        return respond_with_file(preview.audio, request, content_type="audio/wav", filename=f"{preview.pk}.wav")


class VoiceProfileFit(VoiceView):
    @extend_schema(
        operation_id="fit_voice_profile",
        summary="Bring a matched voice closer, in the background",
        description="Takes minutes; the status tells how far it is. Kept only if it is nearer and as intelligible.",
        request=None,
        responses={202: StatusSerializer}
        | _NOT_FOUND
        | refusals("not_ready", "disabled", "deleting", "fitting_impossible"),
    )
    def post(self, request: Request, profile_id: uuid.UUID) -> Response:
        profile = self.own(profile_id)
        services.start_fitting(profile=profile)
        return self._respond(profile)

    @extend_schema(
        operation_id="cancel_fitting",
        summary="Stop bringing it closer; what was found before stays",
        responses={202: StatusSerializer} | _NOT_FOUND,
    )
    def delete(self, request: Request, profile_id: uuid.UUID) -> Response:
        profile = self.own(profile_id)
        services.cancel_fitting(profile=profile)
        return self._respond(profile)

    def _respond(self, profile: VoiceProfile) -> Response:
        profile.refresh_from_db()
        prefetch_related_objects([profile], "jobs")
        return Response(describe_status(profile, is_own=True), status=status.HTTP_202_ACCEPTED)


class VoiceProfileExport(VoiceView):
    renderer_classes = (JSONRenderer, AnyRenderer)

    @extend_schema(
        operation_id="export_voice_profile",
        summary="The voice as one file",
        description="A zip of profile.json, the recordings and the reference clip.",
        responses={(200, "application/zip"): OpenApiTypes.BINARY}
        | _NOT_FOUND
        | refusals("recording_missing")
        | _STORAGE_AWAY,
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
        summary="Make a voice from an exported one",
        description="Consent is given anew, and the voice is made anew from its recordings.",
        request={"multipart/form-data": ImportSerializer},
        responses={201: _PROFILE}
        | refusals(
            *("consent_required", "consent_invalid", "archive_unreadable", "name_required", "name_too_long", "invalid"),
            *_AUDIO_REFUSALS,
        )
        | _NOT_LOGGED_IN
        | _UPLOAD_REFUSALS
        | refusals("audio_too_large", "archive_too_large")
        | refusals("quota_exceeded", "voice_too_large"),
    )
    def post(self, request: Request) -> Response:
        consent = self.read_consent()
        file = self.read_upload("file", most_bytes=MAX_ARCHIVE_BYTES, too_large="archive_too_large")
        profile = services.import_voice_profile(owner=self.user, file=file, **consent)
        return Response(self.describe_anew(profile), status=status.HTTP_201_CREATED)


_AUDIO_FILE = {
    (200, "audio/flac"): OpenApiTypes.BINARY,
    (206, "audio/flac"): OpenApiTypes.BINARY,
}


class RecordingAudio(VoiceView):
    renderer_classes = (JSONRenderer, AnyRenderer)

    @extend_schema(
        operation_id="recording_audio",
        summary="A recording as FLAC, for its owner; ranges are served",
        responses=_AUDIO_FILE | _FILE_REFUSALS,
    )
    def get(self, request: Request, profile_id: uuid.UUID, recording_id: uuid.UUID) -> HttpResponse:
        recording = self.own_recording(profile_id, recording_id)
        return respond_with_file(recording.audio, request, content_type="audio/flac", filename=f"{recording.pk}.flac")


class VoiceProfileAudio(VoiceView):
    renderer_classes = (JSONRenderer, AnyRenderer)

    @extend_schema(
        operation_id="voice_profile_audio",
        summary="Its first recording as FLAC, for its owner; ranges are served",
        responses=_AUDIO_FILE | _FILE_REFUSALS,
    )
    def get(self, request: Request, profile_id: uuid.UUID) -> HttpResponse:
        recording = Recording.objects.filter(profile__owner=self.user, profile_id=profile_id).oldest_first().first()
        if recording is None:
            raise Http404
        return respond_with_file(recording.audio, request, content_type="audio/flac", filename=f"{recording.pk}.flac")
