"""The jobs of a voice: the status of its build and its fit, a retry, starting and cancelling a fit."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from django.db.models import prefetch_related_objects
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.response import Response

from avatar_site.lib.api_schema import refusals
from voices import services
from voices.api.base import (
    NOT_FOUND,
    PROFILE,
    VoiceView,
)
from voices.api.serializers import (
    StatusSerializer,
    describe_status,
)
from voices.models import VoiceProfile

if TYPE_CHECKING:
    from rest_framework.request import Request


class VoiceProfileStatus(VoiceView):
    @extend_schema(
        operation_id="voice_profile_status",
        summary="The progress of its build and its fit",
        responses={200: StatusSerializer} | NOT_FOUND,
    )
    def get(self, request: Request, profile_id: uuid.UUID) -> Response:
        profile = self.visible(profile_id)
        prefetch_related_objects([profile], "jobs")
        return Response(describe_status(profile, is_own=profile.is_owned_by(self.user)))


class VoiceProfileRetry(VoiceView):
    @extend_schema(
        operation_id="retry_voice_profile",
        summary="Build a voice again whose build failed",
        request=None,
        responses={202: PROFILE} | NOT_FOUND | refusals("not_failed", "disabled", "deleting"),
    )
    def post(self, request: Request, profile_id: uuid.UUID) -> Response:
        profile = self.own(profile_id)
        services.retry(profile=profile)
        return Response(self.describe_fresh(profile), status=status.HTTP_202_ACCEPTED)


class VoiceProfileFit(VoiceView):
    @extend_schema(
        operation_id="fit_voice_profile",
        summary="Fit a style to a matched voice, in the background",
        description="Takes minutes. The style is stored only if it is nearer and as intelligible.",
        request=None,
        responses={202: StatusSerializer}
        | NOT_FOUND
        | refusals("not_ready", "disabled", "deleting", "fitting_impossible"),
    )
    def post(self, request: Request, profile_id: uuid.UUID) -> Response:
        profile = self.own(profile_id)
        services.start_fitting(profile=profile)
        return self._respond(profile)

    @extend_schema(
        operation_id="cancel_fitting",
        summary="Cancel the fit; the style of an earlier one stays",
        responses={202: StatusSerializer} | NOT_FOUND,
    )
    def delete(self, request: Request, profile_id: uuid.UUID) -> Response:
        profile = self.own(profile_id)
        services.cancel_fitting(profile=profile)
        return self._respond(profile)

    def _respond(self, profile: VoiceProfile) -> Response:
        profile.refresh_from_db()
        prefetch_related_objects([profile], "jobs")
        return Response(describe_status(profile, is_own=True), status=status.HTTP_202_ACCEPTED)
