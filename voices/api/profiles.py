"""Voices: the list, one voice, creating, changing and deleting it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.pagination import PageNumberPagination
from rest_framework.parsers import MultiPartParser
from rest_framework.response import Response

from avatar_site.lib.api_schema import refusals
from avatar_site.lib.parsers import JSONParser
from voices import services
from voices.api.base import (
    AUDIO_REFUSALS,
    NOT_FOUND,
    NOT_LOGGED_IN,
    PROFILE,
    UPLOAD_REFUSALS,
    VoiceView,
)
from voices.api.requests import ChangeSerializer, CreateSerializer, ListQuerySerializer
from voices.api.serializers import (
    VoiceProfileSerializer,
)
from voices.models import VoiceProfile

if TYPE_CHECKING:
    from rest_framework.request import Request

    from voices.models import VoiceProfileQuerySet


class VoicePages(PageNumberPagination):
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200


class VoiceProfileList(VoiceView):
    parser_classes = (MultiPartParser,)
    # For the schema: without it, the response would be an array.
    pagination_class = VoicePages

    @extend_schema(
        operation_id="list_voice_profiles",
        summary="The voices that the user can see, newest first",
        parameters=[
            OpenApiParameter("page", int),
            OpenApiParameter("page_size", int, description="50 unless told, at most 200."),
            OpenApiParameter("scope", str, enum=["own", "shared", "stock"]),
        ],
        responses={200: VoiceProfileSerializer(many=True)} | refusals("invalid", field="scope") | NOT_FOUND,
    )
    def get(self, request: Request) -> Response:
        query = ListQuerySerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        voices = self._find(query.validated_data.get("scope", ""))
        pages = self.pagination_class()
        page = pages.paginate_queryset(voices, request, view=self) or []
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
        summary="Create a voice from a recording",
        request={"multipart/form-data": CreateSerializer},
        responses={201: PROFILE}
        | refusals(
            "consent_required",
            "consent_invalid",
            "name_required",
            "name_too_long",
            "language_unknown",
            "invalid",
            *AUDIO_REFUSALS,
        )
        | NOT_LOGGED_IN
        | UPLOAD_REFUSALS,
    )
    def post(self, request: Request) -> Response:
        given = self.read(CreateSerializer)
        profile = services.create_voice_profile(
            owner=self.user,
            name=given.validated_data["name"],
            audio=given.validated_data["audio"].read(),
            language=given.validated_data.get("language", ""),
            **given.read_consent(),
        )
        return Response(self.describe_fresh(profile), status=status.HTTP_201_CREATED)


class VoiceProfileDetail(VoiceView):
    parser_classes = (JSONParser,)

    @extend_schema(operation_id="retrieve_voice_profile", summary="One voice", responses={200: PROFILE} | NOT_FOUND)
    def get(self, request: Request, profile_id: uuid.UUID) -> Response:
        return Response(self.describe_fresh(self.visible(profile_id)))

    @extend_schema(
        operation_id="change_voice_profile",
        summary="Rename it, set its language, share it with all users",
        description=("Another language rebuilds it. Only operators share, their own; any owner may stop sharing."),
        request=ChangeSerializer,
        responses={200: PROFILE}
        | refusals("name_required", "name_too_long", "language_unknown", "invalid")
        | refusals("not_logged_in", "operators_only", "stock_voice")
        | refusals("not_found")
        | refusals("disabled", "deleting"),
    )
    def patch(self, request: Request, profile_id: uuid.UUID) -> Response:
        profile = self.own(profile_id)
        changes = self.read(ChangeSerializer).validated_data
        profile = services.change_voice_profile(profile=profile, user=self.user, **changes)
        return Response(self.describe_fresh(profile))

    @extend_schema(
        operation_id="delete_voice_profile",
        summary="Delete a voice and everything built from it, at once and for good",
        description="Conversations keep their words, and their audio for as long as audio is kept.",
        responses={204: None}
        | refusals("not_logged_in", "stock_voice")
        | refusals("not_found")
        | refusals("deletion_unfinished"),
    )
    def delete(self, request: Request, profile_id: uuid.UUID) -> Response:
        services.delete_voice_profile(profile=self.own(profile_id))
        return Response(status=status.HTTP_204_NO_CONTENT)
