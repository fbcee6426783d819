"""How a call begins, and its limits. Pure values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from inference.interfaces import Quality
from realtime.call.voice import Voice
from realtime.messages import Mode


@dataclass(frozen=True, slots=True)
class ReplyLimits:
    """How long to wait for others, in seconds, and how far to run ahead of playout."""

    first_token_s: float = 30.0
    next_token_s: float = 15.0
    first_audio_s: float = 30.0
    next_audio_s: float = 15.0
    #: How much longer than expected a client may take to play something.
    stall_s: float = 10.0
    max_ahead_ms: int = 2000


@dataclass(frozen=True, slots=True)
class CallSettings:
    """How a call begins, and its limits."""

    system_prompt: str = ""
    #: What stands between the system prompt and the conversation.
    examples: tuple[tuple[str, str], ...] = ()
    place: str = ""
    read_time: Callable[[], datetime] | None = None
    mode: Mode = Mode.HANDS_FREE
    language: Literal["auto", "zh", "en"] = "auto"
    pause_ms: int = 600
    sensitivity: float = 0.5
    quality: Quality = Quality.FAST
    speed: float = 1.0
    voice: Voice = field(default_factory=Voice)
    max_reply_tokens: int = 256
    temperature: float = 0.6
    repeat_penalty: float = 1.0
    max_history_messages: int = 40
    max_utterance_bytes: int = 10_000_000
    max_utterance_chunks: int = 1000
    max_utterance_s: int = 60
    #: What waits for a recogniser that has fallen behind, hands-free; the oldest is dropped beyond.
    max_queued_ms: int = 10_000
    #: How long a final transcript may take once it was asked for; hands-free, how much audio the recogniser may be sent
    #: during speech without reporting anything itself.
    transcript_s: float = 30.0
    #: A transcript that comes later than this after its utterance ended is that of a machine that is overloaded.
    max_lateness_s: float = 5.0
    #: How long a voice or a past turn may be looked for, and an upload decoded.
    lookup_s: float = 5.0
    decode_s: float = 20.0
    prefill_s: float = 20.0
    first_retry_s: float = 0.5
    last_retry_s: float = 5.0
    reply: ReplyLimits = field(default_factory=ReplyLimits)
