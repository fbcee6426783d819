"""The preferred voice and quality."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.response import Response

from avatar_site.lib.api_schema import refusals
from avatar_site.lib.parsers import JSONParser
from voices import services
from voices.api.base import (
    NOT_FOUND,
    NOT_LOGGED_IN,
    VoiceView,
)
from voices.api.requests import PreferenceChangeSerializer
from voices.api.serializers import (
    PreferenceSerializer,
)

if TYPE_CHECKING:
    from rest_framework.request import Request


class VoiceProfileDefault(VoiceView):
    @extend_schema(
        operation_id="choose_default_voice",
        summary="Prefer this voice",
        request=None,
        responses={204: None} | NOT_FOUND | refusals("not_ready", "disabled", "deleting"),
    )
    def post(self, request: Request, profile_id: uuid.UUID) -> Response:
        profile = self.visible(profile_id)
        services.check_speakable(profile)
        services.choose_default(user=self.user, profile=profile)
        return Response(status=status.HTTP_204_NO_CONTENT)


class VoiceDefault(VoiceView):
    """The preferred voice and quality of the user."""

    parser_classes = (JSONParser,)

    @extend_schema(
        operation_id="voice_default",
        summary="The preferred voice and quality",
        responses={200: PreferenceSerializer} | NOT_LOGGED_IN,
    )
    def get(self, request: Request) -> Response:
        preference = services.read_preference(user=self.user)
        return Response({"voice_profile_id": preference.profile_id, "quality": preference.quality})

    @extend_schema(
        operation_id="choose_quality",
        summary="Prefer a quality",
        request=PreferenceChangeSerializer,
        responses={204: None} | refusals("quality_unknown", "invalid") | NOT_LOGGED_IN,
    )
    def patch(self, request: Request) -> Response:
        services.choose_quality(user=self.user, quality=self.read(PreferenceChangeSerializer).validated_data["quality"])
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(
        operation_id="forget_default_voice",
        summary="Prefer the default voice for the language of the reply",
        responses={204: None} | NOT_LOGGED_IN,
    )
    def delete(self, request: Request) -> Response:
        services.choose_default(user=self.user, profile=None)
        return Response(status=status.HTTP_204_NO_CONTENT)
