"""What a call records of its turns, and what it remembers of earlier ones. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from inference.interfaces import BYTES_PER_SAMPLE, MICROPHONE_SAMPLE_RATE_HZ, Message, Quality


@dataclass(frozen=True, slots=True)
class SaidTurn:
    """A turn to be kept. `pcm` is PCM16 mono; empty when there is no sound to it."""

    turn_id: UUID
    speaker: Literal["user", "avatar"]
    text: str
    language: str
    pcm: bytes = b""
    sample_rate_hz: int = MICROPHONE_SAMPLE_RATE_HZ
    was_interrupted: bool = False
    voice_profile_id: UUID | None = None
    quality: Quality | None = None
    latency: dict[str, Any] | None = None

    @property
    def duration_ms(self) -> int:
        return len(self.pcm) * 1000 // (self.sample_rate_hz * BYTES_PER_SAMPLE)


@dataclass(frozen=True, slots=True)
class BegunTurn:
    """What a reply has come to that is being spoken: kept at its first sound and from clause to clause."""

    turn_id: UUID
    text: str
    language: str
    voice_profile_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class DroppedTurn:
    """A reply that was begun and stopped before anything of it was heard."""

    turn_id: UUID


@dataclass(frozen=True, slots=True)
class CorrectedTurn:
    """What the user had said in a turn that is kept, or is about to be; what followed it is superseded."""

    turn_id: UUID
    text: str


@dataclass(frozen=True, slots=True)
class PastTurn:
    """A turn as the language model remembers it."""

    turn_id: UUID
    message: Message


#: Whatever a call records.
RecordedTurn = SaidTurn | BegunTurn | DroppedTurn | CorrectedTurn
