"""The list of conversations; read, name, pin and delete one."""

from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.http import Http404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.response import Response

from avatar_site.lib.api_schema import refusals
from conversations import queries, services
from conversations.api.base import ConversationView, Pages, delete_or_refuse
from conversations.api_schema import (
    CONVERSATION,
    CONVERSATIONS,
    FILES_REMAIN,
    NOT_ALLOWED,
    NOT_FOUND,
    NOT_LOGGED_IN,
)
from conversations.models import Conversation
from conversations.serializers import (
    ConversationChangeSerializer,
    ConversationSerializer,
    ListingSerializer,
)

if TYPE_CHECKING:
    from rest_framework.request import Request

    from conversations.models import ConversationQuerySet


class ConversationList(ConversationView, ListAPIView[Conversation]):
    serializer_class = ConversationSerializer
    pagination_class = Pages

    @extend_schema(
        operation_id="conversations_list",
        summary="What one has talked about, newest first; searched and filtered",
        parameters=[
            ListingSerializer,
            OpenApiParameter("from", OpenApiTypes.DATE, description="A day, included, in the site's time zone."),
            OpenApiParameter("to", OpenApiTypes.DATE, description="A day, included."),
        ],
        responses={200: CONVERSATIONS} | refusals("invalid", field="from") | NOT_LOGGED_IN | NOT_FOUND,
    )
    def get(self, request: Request) -> Response:
        """The user's conversations, newest first: by the time of their last turn, then by id."""
        return self.list(request)

    def get_queryset(self) -> ConversationQuerySet:
        return queries.find_conversations(owner=self.user, wanted=self.wanted)

    @property
    def wanted(self) -> dict[str, Any]:
        asked = ListingSerializer(data=self.request.query_params.dict())
        asked.is_valid(raise_exception=True)
        return asked.validated_data

    def paginate_queryset(self, queryset: Any) -> Any:
        page = super().paginate_queryset(queryset)
        if page is not None:
            queries.add_voices(page)
            queries.add_matches(page, self.wanted.get("q", ""))
        return page


class ConversationDetail(ConversationView):
    @extend_schema(
        operation_id="conversation_read",
        summary="One conversation",
        responses={200: CONVERSATION} | NOT_LOGGED_IN | NOT_FOUND,
    )
    def get(self, request: Request, conversation_id: uuid.UUID) -> Response:
        """One conversation."""
        return self._describe(self.find_conversation(conversation_id))

    @extend_schema(
        operation_id="conversation_change",
        summary="Name it, or pin it against the retention",
        request=ConversationChangeSerializer,
        examples=[OpenApiExample("named and pinned", {"title": "台北的天氣", "is_pinned": True}, request_only=True)],
        responses={200: CONVERSATION} | refusals("invalid", field="title") | NOT_ALLOWED | NOT_FOUND,
    )
    def patch(self, request: Request, conversation_id: uuid.UUID) -> Response:
        """An empty title takes it back: then it is the user's first words again."""
        conversation = self.find_conversation(conversation_id)
        change = ConversationChangeSerializer(data=request.data)
        change.is_valid(raise_exception=True)
        return self._describe(services.change_conversation(conversation=conversation, **change.validated_data))

    @extend_schema(
        operation_id="conversation_delete",
        summary="Delete it with all that was said and all audio, at once",
        responses={204: None} | NOT_ALLOWED | NOT_FOUND | FILES_REMAIN,
    )
    def delete(self, request: Request, conversation_id: uuid.UUID) -> Response:
        """Files go first: if they cannot be removed (503), the conversation is still there and can be deleted again."""
        mine = Conversation.objects.owned_by(self.user).filter(pk=conversation_id)
        if not delete_or_refuse(mine).conversations:
            raise Http404
        return Response(status=HTTPStatus.NO_CONTENT)

    def _describe(self, conversation: Conversation) -> Response:
        queries.add_voices([conversation])
        queries.add_matches([conversation], "")
        return Response(ConversationSerializer(conversation).data)
