"""What the API's views of conversations share."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from django.shortcuts import get_object_or_404
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.pagination import PageNumberPagination
from rest_framework.views import APIView

from avatar_site.lib.problems import ProblemError
from conversations import deletion
from conversations.models import Conversation

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from rest_framework.renderers import BaseRenderer
    from rest_framework.request import Request

    from conversations.models import ConversationQuerySet


class OneMediaType(DefaultContentNegotiation):
    """Ignores the Accept header: each view has one media type."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, renderer.media_type


class ConversationView(APIView):
    content_negotiation_class = OneMediaType

    @property
    def user(self) -> User:
        return cast("User", self.request.user)

    def find_conversation(self, conversation_id: uuid.UUID) -> Conversation:
        return get_object_or_404(Conversation.objects.owned_by(self.user).with_figures(), pk=conversation_id)


def delete_or_refuse(conversations: ConversationQuerySet) -> deletion.Deleted:
    try:
        return deletion.delete_conversations(conversations=conversations)
    except deletion.FilesRemain:
        raise ProblemError("not_all_deleted") from None


class Pages(PageNumberPagination):
    page_size = 20
    page_size_query_param = "page_size"
    max_page_size = 100
