"""Conversations over HTTP. Another person's conversation does not exist: 404."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from django.db.models import Max
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.utils.cache import get_conditional_response
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.pagination import PageNumberPagination
from rest_framework.parsers import FormParser
from rest_framework.permissions import AllowAny
from rest_framework.response import Response
from rest_framework.views import APIView

from avatar_site.lib.api_schema import refusals
from avatar_site.lib.http_ranges import respond_with_file
from avatar_site.lib.parsers import JSONParser
from avatar_site.lib.problems import ProblemError
from conversations import deletion, queries, services
from conversations.api_schema import (
    ARCHIVE,
    AUDIO,
    CONVERSATION,
    CONVERSATIONS,
    CORRECTED_TURN,
    DELETED,
    FILES_REMAIN,
    NOT_ALLOWED,
    NOT_FOUND,
    NOT_LOGGED_IN,
    RANGE_INVALID,
    RETENTION,
    STORAGE_UNAVAILABLE,
    TURNS,
)
from conversations.archive import stream_archive
from conversations.models import Conversation, RetentionRun, Turn
from conversations.serializers import (
    ChosenConversationsSerializer,
    ConversationChangeSerializer,
    ConversationSerializer,
    DeletedSerializer,
    DoomedConversationsSerializer,
    LimitsSerializer,
    ListingSerializer,
    RetentionSerializer,
    TurnChangeSerializer,
    TurnSerializer,
    media_type_of,
)

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from rest_framework.renderers import BaseRenderer
    from rest_framework.request import Request

    from conversations.models import ConversationQuerySet, TurnQuerySet

#: Values of a query parameter that are true; any other is false.
_YES = {"1", "true", "yes"}


class OneMediaType(DefaultContentNegotiation):
    """Ignores the Accept header: each view has one media type."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, renderer.media_type


class _View(APIView):
    content_negotiation_class = OneMediaType

    @property
    def user(self) -> User:
        return cast("User", self.request.user)

    def find_conversation(self, conversation_id: uuid.UUID) -> Conversation:
        return get_object_or_404(Conversation.objects.owned_by(self.user).with_figures(), pk=conversation_id)


def _delete(conversations: ConversationQuerySet) -> deletion.Deleted:
    try:
        return deletion.delete_conversations(conversations=conversations)
    except deletion.FilesRemain:
        raise ProblemError("not_all_deleted") from None


class Pages(PageNumberPagination):
    page_size = 20
    page_size_query_param = "page_size"
    max_page_size = 100


class PagesOfTurns(Pages):
    page_size = 50


class ConversationList(_View, ListAPIView[Conversation]):
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


class ConversationDetail(_View):
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
        if not _delete(mine).conversations:
            raise Http404
        return Response(status=HTTPStatus.NO_CONTENT)

    def _describe(self, conversation: Conversation) -> Response:
        queries.add_voices([conversation])
        queries.add_matches([conversation], "")
        return Response(ConversationSerializer(conversation).data)


class TurnList(_View, ListAPIView[Turn]):
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


class TurnDetail(_View):
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


class TurnAudio(_View):
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


_SOME = OpenApiExample("some", {"ids": ["3f0c1f6e-6d2b-4c53-9f43-4a7d2b1d9a10"]}, request_only=True)


class _ExportView(_View):
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


class Deletion(_View):
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
        return Response(DeletedSerializer(_delete(mine)).data)


class Retention(_View):
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
