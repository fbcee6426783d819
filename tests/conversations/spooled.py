"""Changes as a call spools them."""

from __future__ import annotations

import uuid
from typing import Any

from django.utils import timezone

from conversations.models import Turn
from conversations.spool import Change


def make_change(text: str = "你好", **fields: Any) -> Change:
    defaults: dict[str, Any] = {
        "turn_id": uuid.uuid4(),
        "speaker": "user",
        "text": text,
        "language": "zh",
        "audio": None,
        "audio_duration_ms": 0,
        "was_interrupted": False,
        "voice_profile_id": None,
        "latency": None,
        "said_at": timezone.now(),
    }
    return Change("append_turn", defaults | fields)


def list_texts() -> list[str]:
    return list(Turn.objects.in_order().values_list("text", flat=True))
