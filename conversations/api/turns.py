"""The turns of a conversation, their audio, and their correction."""

from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.cache import get_conditional_response
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.permissions import AllowAny
from rest_framework.response import Response

from avatar_site.lib.api_schema import refusals
from avatar_site.lib.http_ranges import respond_with_file
from avatar_site.lib.problems import ProblemError
from conversations import services
from conversations.api.base import ConversationView, Pages
from conversations.api_schema import (
    AUDIO,
    CORRECTED_TURN,
    NOT_ALLOWED,
    NOT_FOUND,
    NOT_LOGGED_IN,
    RANGE_INVALID,
    STORAGE_UNAVAILABLE,
    TURNS,
)
from conversations.models import Conversation, Turn
from conversations.serializers import (
    TurnChangeSerializer,
    TurnSerializer,
    media_type_of,
)

if TYPE_CHECKING:
    from rest_framework.request import Request

    from conversations.models import TurnQuerySet


#: Values of a query parameter that are true; any other is false.
_YES = {"1", "true", "yes"}


class PagesOfTurns(Pages):
    page_size = 50


class TurnList(ConversationView, ListAPIView[Turn]):
    serializer_class = TurnSerializer
    pagination_class = PagesOfTurns

    @extend_schema(
        operation_id="turns_list",
        summary="What was said in it, in order",
        responses={200: TURNS} | NOT_LOGGED_IN | NOT_FOUND,
    )
    def get(self, request: Request, conversation_id: uuid.UUID) -> Response:
        """Superseded turns, which a correction has replaced, are among them."""
        return self.list(request)

    def get_queryset(self) -> TurnQuerySet:
        if getattr(self, "swagger_fake_view", False):
            return Turn.objects.none()
        mine = Conversation.objects.owned_by(self.user)
        conversation = get_object_or_404(mine, pk=self.kwargs["conversation_id"])
        return Turn.objects.filter(conversation=conversation).in_order()


class TurnDetail(ConversationView):
    @extend_schema(
        operation_id="turn_correct",
        summary="Correct what was understood of the user",
        request=TurnChangeSerializer,
        examples=[OpenApiExample("what was meant", {"text": "今天台北的天氣怎麼樣？"}, request_only=True)],
        responses={200: CORRECTED_TURN}
        | refusals("invalid", field="text")
        | NOT_ALLOWED
        | NOT_FOUND
        | refusals("not_correctable"),
    )
    def patch(self, request: Request, conversation_id: uuid.UUID, turn_id: uuid.UUID) -> Response:
        """
        Only what the user said can be corrected, and only while it is a part of the conversation.

        What was understood stays as `heard_text`; the language model remembers the new text from the next call on.
        For a new answer send `correct` over the socket.
        """
        turns = Turn.objects.owned_by(self.user).filter(conversation=conversation_id)
        turn = get_object_or_404(turns, pk=turn_id)
        change = TurnChangeSerializer(data=request.data)
        change.is_valid(raise_exception=True)
        try:
            turn = services.correct_turn(
                conversation_id=conversation_id, turn_id=turn.pk, text=change.validated_data["text"], supersede=False
            )
        except services.NotCorrectable:
            raise ProblemError("not_correctable") from None
        return Response(TurnSerializer(turn).data)


class TurnAudio(ConversationView):
    # Requested by players, not by scripts: without a login it is 404, as for others.
    permission_classes = (AllowAny,)

    @extend_schema(
        operation_id="turn_audio",
        summary="A turn's audio, whole or in part",
        parameters=[
            OpenApiParameter("Range", OpenApiTypes.STR, OpenApiParameter.HEADER, description="One range of bytes."),
            OpenApiParameter(
                "download", OpenApiTypes.BOOL, description="To be saved (`1`, `true`, `yes`), not played."
            ),
        ],
        responses=AUDIO | NOT_FOUND | RANGE_INVALID | STORAGE_UNAVAILABLE,
    )
    def get(self, request: Request, conversation_id: uuid.UUID, turn_id: uuid.UUID) -> HttpResponse:
        """Ogg/Opus or FLAC, as it is stored. Without a login it does not exist: 404."""
        turns = Turn.objects.owned_by(self.user).filter(conversation_id=conversation_id).exclude(audio="")
        turn = get_object_or_404(turns, pk=turn_id)
        filename = turn.audio_name.rpartition("/")[2]
        # Other content has another name.
        etag = f'"{filename}-{turn.audio_bytes}"'
        is_current = request.headers.get("If-Range", etag) == etag
        response = respond_with_file(
            turn.audio,
            content_type=media_type_of(turn.audio_name),
            filename=filename,
            wanted=request.headers.get("Range", "") if is_current else "",
            is_download=request.query_params.get("download", "").lower() in _YES,
        )
        # Revalidated each time: what was deleted is not played from a cache.
        response.headers["Cache-Control"] = "private, no-cache"
        response.headers["ETag"] = etag
        if response.status_code != HTTPStatus.OK:
            return response
        return cast(HttpResponse, get_conditional_response(request._request, etag=etag, response=response))
