"""Conversations and turns in the API's responses and requests."""

from __future__ import annotations

import datetime as dt
from pathlib import PurePosixPath
from typing import Any, ClassVar

from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from avatar_site.lib.text import clean_line, strip_unseen
from conversations.encode import MEDIA_TYPES
from conversations.models import ANY_DELETED_VOICE, Conversation, RetentionChoice, Speaker, Turn
from conversations.search import MAX_QUERY_CHARACTERS
from voices.models import Quality

MAX_TEXT_CHARACTERS = 4_000
MAX_IDS = 1_000


class VoiceOfTurnSerializer(serializers.Serializer[Turn]):
    """The voice of a turn, with its name at that time. `is_deleted`: the voice was deleted since."""

    id = serializers.UUIDField(source="voice_profile_id", allow_null=True)
    name = serializers.CharField(source="voice_name")
    is_deleted = serializers.BooleanField(source="voice_was_deleted")


class PieceSerializer(serializers.Serializer[Any]):
    text = serializers.CharField()
    is_match = serializers.BooleanField()


class MatchSerializer(serializers.Serializer[Any]):
    """An excerpt with the matches of a search; without a turn, of the title."""

    turn_id = serializers.UUIDField(allow_null=True)
    speaker = serializers.ChoiceField(Speaker.choices, allow_null=True)
    pieces = PieceSerializer(many=True)


class ConversationSerializer(serializers.ModelSerializer[Conversation]):
    turn_count = serializers.IntegerField(read_only=True, help_text="Without superseded turns.")
    audio_ms = serializers.IntegerField(read_only=True)
    audio_bytes = serializers.IntegerField(read_only=True)
    voices = VoiceOfTurnSerializer(many=True, read_only=True)
    match = MatchSerializer(read_only=True, allow_null=True)

    class Meta:
        model = Conversation
        fields = (
            "id",
            "title",
            "is_pinned",
            "created_at",
            "last_turn_at",
            "turn_count",
            "audio_ms",
            "audio_bytes",
            "voices",
            "match",
        )


class ShownField(serializers.CharField):
    """Text that is shown next to ours: strips control characters and those that reorder or hide text. Refuses NUL."""

    def __init__(self, *, is_line: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.is_line = is_line

    def run_validation(self, data: Any = serializers.empty) -> Any:
        if isinstance(data, str) and "\0" not in data:
            data = clean_line(data) if self.is_line else strip_unseen(data)
        return super().run_validation(data)


class ConversationChangeSerializer(serializers.Serializer[Any]):
    title = ShownField(
        is_line=True,
        max_length=Conversation.TITLE_LENGTH,
        required=False,
        allow_blank=True,
        help_text="Empty: the user's first words, as before somebody named it.",
    )
    is_pinned = serializers.BooleanField(required=False)


class LatencySerializer(serializers.Serializer[Any]):
    stt = serializers.IntegerField(allow_null=True)
    ttft = serializers.IntegerField(allow_null=True)
    ttfa = serializers.IntegerField(allow_null=True)
    total = serializers.IntegerField(allow_null=True)


class AudioSerializer(serializers.Serializer[Any]):
    url = serializers.CharField()
    type = serializers.ChoiceField(sorted(MEDIA_TYPES.values()))
    duration_ms = serializers.IntegerField()
    bytes = serializers.IntegerField()


class TurnSerializer(serializers.ModelSerializer[Turn]):
    quality = serializers.ChoiceField(choices=Quality.choices, allow_blank=True, read_only=True)
    voice = serializers.SerializerMethodField()
    latency_ms = LatencySerializer(source="latency", allow_null=True)
    audio = serializers.SerializerMethodField()

    class Meta:
        model = Turn
        fields = (
            "id",
            "sequence",
            "speaker",
            "text",
            "language",
            "heard_text",
            "corrected_at",
            "is_superseded",
            "was_interrupted",
            "created_at",
            "quality",
            "voice",
            "latency_ms",
            "audio",
        )
        read_only_fields = fields

    @extend_schema_field(VoiceOfTurnSerializer(allow_null=True))
    def get_voice(self, turn: Turn) -> Any:
        return VoiceOfTurnSerializer(turn).data if turn.voice_name else None

    @extend_schema_field(AudioSerializer(allow_null=True))
    def get_audio(self, turn: Turn) -> Any:
        if not turn.audio:
            return None
        return {
            "url": reverse("conversations_api:turn-audio", args=[turn.conversation_id, turn.pk]),
            "type": media_type_of(turn.audio_name),
            "duration_ms": turn.audio_duration_ms,
            "bytes": turn.audio_bytes,
        }


def media_type_of(name: str) -> str:
    return MEDIA_TYPES.get(PurePosixPath(name).suffix, "application/octet-stream")


class TurnChangeSerializer(serializers.Serializer[Any]):
    text = ShownField(max_length=MAX_TEXT_CHARACTERS)


class VoiceField(serializers.UUIDField):
    """The id of a voice, or `ANY_DELETED_VOICE`."""

    def to_internal_value(self, data: Any) -> Any:
        return data if data == ANY_DELETED_VOICE else super().to_internal_value(data)


class DayField(serializers.DateField):
    """A day from 1970 on: the first days of the calendar cannot be converted to other time zones."""

    FIRST = dt.date(1970, 1, 1)
    default_error_messages: ClassVar = {"too_early": _("Please choose a day from 1970 on.")}

    def to_internal_value(self, value: Any) -> dt.date:
        day = super().to_internal_value(value)
        if day < self.FIRST:
            self.fail("too_early")
        return day


class ListingSerializer(serializers.Serializer[Any]):
    """The query parameters of the list of conversations."""

    q = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=MAX_QUERY_CHARACTERS,
        help_text="All terms in one turn, or the whole in the title: any substring in Chinese, words from their start.",
    )
    since = DayField(required=False, help_text="A day, included, in the site's time zone.")
    until = DayField(required=False, help_text="A day, included.")
    voice = VoiceField(
        required=False, help_text="A voice that some turn was spoken in; `deleted`: one that is no more."
    )
    pinned = serializers.BooleanField(required=False, allow_null=True, default=None)
    ordering = serializers.ChoiceField(["-time", "time"], default="-time")

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        # `from` cannot be written as an attribute.
        fields = super().get_fields()
        return {{"since": "from", "until": "to"}.get(name, name): field for name, field in fields.items()}


class ChosenConversationsSerializer(serializers.Serializer[Any]):
    ids = serializers.ListField(child=serializers.UUIDField(), max_length=MAX_IDS, allow_empty=False, required=False)


class DoomedConversationsSerializer(ChosenConversationsSerializer):
    all = serializers.BooleanField(default=False, help_text="Everything the user has.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["all"] == ("ids" in attrs):
            raise serializers.ValidationError({"ids": _("Say which conversations, or all of them.")})
        return attrs


class DeletedSerializer(serializers.Serializer[Any]):
    conversations = serializers.IntegerField()
    turns = serializers.IntegerField()
    audio_files = serializers.IntegerField()


class LimitsSerializer(serializers.Serializer[Any]):
    """Days; null keeps without limit."""

    audio_days = serializers.IntegerField(min_value=1, max_value=RetentionChoice.MAX_DAYS, allow_null=True)
    text_days = serializers.IntegerField(min_value=1, max_value=RetentionChoice.MAX_DAYS, allow_null=True)


class RetentionSerializer(LimitsSerializer):
    """The user's own choice; null is as long as the site keeps it."""

    site = LimitsSerializer(read_only=True)
    effective = LimitsSerializer(read_only=True)
    last_run_at = serializers.DateTimeField(read_only=True, allow_null=True)
