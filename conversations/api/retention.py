"""The user's own retention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db.models import Max
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.response import Response

from avatar_site.lib.api_schema import refusals
from avatar_site.lib.problems import ProblemError
from conversations import services
from conversations.api.base import ConversationView
from conversations.api_schema import (
    NOT_ALLOWED,
    NOT_LOGGED_IN,
    RETENTION,
)
from conversations.models import RetentionRun
from conversations.serializers import (
    LimitsSerializer,
    RetentionSerializer,
)

if TYPE_CHECKING:
    from rest_framework.request import Request


class Retention(ConversationView):
    @extend_schema(
        operation_id="retention_read",
        summary="For how many days what was said is kept",
        responses={200: RETENTION} | NOT_LOGGED_IN,
    )
    def get(self, request: Request) -> Response:
        """The user's own limits, the site's, and what comes of both; null keeps."""
        return self._describe()

    @extend_schema(
        operation_id="retention_choose",
        summary="Choose shorter limits than the site's",
        request=LimitsSerializer,
        examples=[OpenApiExample("audio for a week", {"audio_days": 7, "text_days": None}, request_only=True)],
        responses={200: RETENTION} | refusals("invalid", "longer_than_site", field="audio_days", days=30) | NOT_ALLOWED,
    )
    def put(self, request: Request) -> Response:
        """Null takes the site's. They hold from the next run on, which is at night."""
        chosen = LimitsSerializer(data=request.data)
        chosen.is_valid(raise_exception=True)
        try:
            services.choose_retention(user=self.user, **chosen.validated_data)
        except services.LongerThanSite as error:
            raise ProblemError("longer_than_site", field=error.field, values={"days": error.days}) from None
        return self._describe()

    def _describe(self) -> Response:
        described = {
            **services.describe_retention(user=self.user),
            "last_run_at": RetentionRun.objects.aggregate(last=Max("finished_at"))["last"],
        }
        return Response(RetentionSerializer(described).data)
