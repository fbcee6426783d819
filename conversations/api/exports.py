"""Export or delete several conversations in one request."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from django.http import Http404, StreamingHttpResponse
from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.parsers import FormParser
from rest_framework.response import Response

from avatar_site.lib.api_schema import refusals
from avatar_site.lib.parsers import JSONParser
from conversations import services
from conversations.api.base import ConversationView, delete_or_refuse
from conversations.api_schema import (
    ARCHIVE,
    DELETED,
    FILES_REMAIN,
    NOT_ALLOWED,
    NOT_FOUND,
)
from conversations.archive import stream_archive
from conversations.models import Conversation
from conversations.serializers import (
    ChosenConversationsSerializer,
    DeletedSerializer,
    DoomedConversationsSerializer,
)

if TYPE_CHECKING:
    from rest_framework.request import Request

    from conversations.models import ConversationQuerySet


_SOME = OpenApiExample("some", {"ids": ["3f0c1f6e-6d2b-4c53-9f43-4a7d2b1d9a10"]}, request_only=True)


class _ExportView(ConversationView):
    # A plain form too: then the browser saves the response.
    parser_classes = (JSONParser, FormParser)

    def answer(self, conversations: ConversationQuerySet, *, filename: str) -> StreamingHttpResponse:
        ids = list(conversations.newest_first().values_list("pk", flat=True))
        if not ids:
            raise Http404
        return StreamingHttpResponse(
            stream_archive(ids),
            content_type="application/zip",
            headers={
                "Content-Disposition": f'attachment; filename="{filename}"',
                "Cache-Control": "private, no-store",
                "X-Expected-Bytes": str(services.estimate_size(conversations=conversations)),
            },
        )


class ConversationExport(_ExportView):
    @extend_schema(
        operation_id="conversation_export",
        summary="One conversation, to take along",
        request=None,
        responses={(200, "application/zip"): ARCHIVE} | NOT_ALLOWED | NOT_FOUND,
    )
    def post(self, request: Request, conversation_id: uuid.UUID) -> StreamingHttpResponse:
        """A ZIP of text, data and audio, made while it is sent."""
        mine = Conversation.objects.owned_by(self.user).filter(pk=conversation_id)
        return self.answer(mine, filename=f"avatar-{str(conversation_id)[:8]}.zip")


class Export(_ExportView):
    @extend_schema(
        operation_id="conversations_export",
        summary="Everything that was said, or the conversations named, to take along",
        request=ChosenConversationsSerializer,
        examples=[_SOME, OpenApiExample("everything", {}, request_only=True)],
        responses={(200, "application/zip"): ARCHIVE} | refusals("invalid", field="ids") | NOT_ALLOWED | NOT_FOUND,
    )
    def post(self, request: Request) -> StreamingHttpResponse:
        """All conversations of the user, or those named."""
        chosen = ChosenConversationsSerializer(data=request.data)
        chosen.is_valid(raise_exception=True)
        mine = Conversation.objects.owned_by(self.user).with_turns()
        if ids := chosen.validated_data.get("ids"):
            mine = mine.filter(pk__in=ids)
        return self.answer(mine, filename=f"avatar-{timezone.localdate():%Y-%m-%d}.zip")


class Deletion(ConversationView):
    @extend_schema(
        operation_id="conversations_delete",
        summary="Delete the conversations named, or all",
        request=DoomedConversationsSerializer,
        examples=[_SOME, OpenApiExample("everything", {"all": True}, request_only=True)],
        responses={200: DELETED} | refusals("invalid", field="ids") | NOT_ALLOWED | FILES_REMAIN,
    )
    def post(self, request: Request) -> Response:
        """
        An id that is not one of the user's conversations is skipped.

        Files go first: one that cannot be removed ends it (503), and the remaining conversations are still listed.
        """
        doomed = DoomedConversationsSerializer(data=request.data)
        doomed.is_valid(raise_exception=True)
        mine = Conversation.objects.owned_by(self.user)
        if not doomed.validated_data["all"]:
            mine = mine.filter(pk__in=doomed.validated_data["ids"])
        return Response(DeletedSerializer(delete_or_refuse(mine)).data)
