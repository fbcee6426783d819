"""The OpenAPI schema of conversations besides its fields: refusals, and an example of each response."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiResponse

from avatar_site.lib.api_schema import Responses, refusals
from conversations.serializers import (
    ConversationSerializer,
    DeletedSerializer,
    RetentionSerializer,
    TurnSerializer,
)

_CONVERSATION = {
    "id": "3f0c1f6e-6d2b-4c53-9f43-4a7d2b1d9a10",
    "title": "今天台北的天氣怎麼樣？",
    "is_pinned": False,
    "created_at": "2026-11-24T15:21:06+08:00",
    "last_turn_at": "2026-11-24T15:24:40+08:00",
    "turn_count": 12,
    "audio_ms": 74_300,
    "audio_bytes": 297_200,
    "voices": [{"id": "0d5a8f9e-4f0c-4a0a-9a57-1a7a2c8b6e11", "name": "我的聲音", "is_deleted": False}],
    "match": None,
}
_FOUND = _CONVERSATION | {
    "match": {
        "turn_id": "8c1d2f52-7f10-4a4e-8a43-0a7a3ef2b4c3",
        "speaker": "user",
        "pieces": [
            {"text": "今天台北的", "is_match": False},
            {"text": "天氣", "is_match": True},
            {"text": "怎麼樣？", "is_match": False},
        ],
    }
}
_ANSWER = {
    "id": "b6b0a3f5-0a33-4e0a-8f0e-6c9f7f2f4d21",
    "sequence": 2,
    "speaker": "avatar",
    "text": "台北今天多雲，最高二十三度。",
    "language": "zh",
    "heard_text": "",
    "corrected_at": None,
    "is_superseded": False,
    "was_interrupted": False,
    "created_at": "2026-11-24T15:21:09+08:00",
    "quality": "fast",
    "voice": {"id": "0d5a8f9e-4f0c-4a0a-9a57-1a7a2c8b6e11", "name": "我的聲音", "is_deleted": False},
    "latency_ms": {"stt": 310, "ttft": 640, "ttfa": 980, "total": 980},
    "audio": {
        "url": "/api/conversations/3f0c1f6e-6d2b-4c53-9f43-4a7d2b1d9a10"
        "/turns/b6b0a3f5-0a33-4e0a-8f0e-6c9f7f2f4d21/audio",
        "type": "audio/ogg",
        "duration_ms": 3_400,
        "bytes": 13_600,
    },
}
_CORRECTED = _ANSWER | {
    "id": "8c1d2f52-7f10-4a4e-8a43-0a7a3ef2b4c3",
    "sequence": 1,
    "speaker": "user",
    "text": "今天台北的天氣怎麼樣？",
    "heard_text": "金天台北的天氣怎麼樣？",
    "corrected_at": "2026-11-24T15:30:00+08:00",
    "quality": "",
    "voice": None,
    "latency_ms": None,
    "audio": None,
}
_RETENTION = {
    "audio_days": 7,
    "text_days": None,
    "site": {"audio_days": 30, "text_days": 90},
    "effective": {"audio_days": 7, "text_days": 90},
    "last_run_at": "2026-11-24T03:30:02+08:00",
}


def _answer(serializer: Any, name: str, value: Any, *, description: str = "") -> OpenApiResponse:
    return OpenApiResponse(serializer, description, [OpenApiExample(name, value=value)])


NOT_LOGGED_IN = refusals("not_logged_in")
#: For requests that change something: a browser has to send the CSRF token as well.
NOT_ALLOWED = refusals("not_logged_in", "forbidden")
NOT_FOUND = refusals("not_found")
FILES_REMAIN = refusals("not_all_deleted")
RANGE_INVALID = refusals("range_invalid")
STORAGE_UNAVAILABLE = refusals("storage_unavailable")

CONVERSATIONS = _answer(ConversationSerializer(many=True), "found by a word", _FOUND)
CONVERSATION = _answer(ConversationSerializer, "a conversation", _CONVERSATION)
TURNS = _answer(TurnSerializer(many=True), "an answer", _ANSWER)
CORRECTED_TURN = _answer(TurnSerializer, "a corrected turn", _CORRECTED)
DELETED = _answer(DeletedSerializer, "gone", {"conversations": 2, "turns": 31, "audio_files": 30})
RETENTION = _answer(RetentionSerializer, "shorter than the site's", _RETENTION)
ARCHIVE = OpenApiResponse(
    OpenApiTypes.BINARY,
    "A ZIP, streamed: a folder for each conversation, with conversation.md, conversation.json and audio/. The header "
    "`X-Expected-Bytes` says about how large it becomes.",
)
AUDIO: Responses = {
    (status, media_type): OpenApiTypes.BINARY
    for status in (HTTPStatus.OK.value, HTTPStatus.PARTIAL_CONTENT.value)
    for media_type in ("audio/ogg", "audio/flac")
} | {
    304: OpenApiResponse(description="It has not changed."),
}
