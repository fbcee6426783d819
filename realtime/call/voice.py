"""The voice that a call speaks in. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from inference.interfaces import VoiceReference


@dataclass(frozen=True, slots=True)
class Voice:
    """
    Whose voice: the profile that was chosen (None: the one the language asks for), and what the engine is told of it.

    That is a key of its own voices or a blend of them, a fitted style, a recording to speak like: what there is.
    """

    profile_id: UUID | None = None
    engine_voice: str = ""
    style: bytes = b""
    reference: VoiceReference | None = None
    #: Counts up whenever the profile comes to sound different.
    version: int = 0


class VoiceUnreadable(Exception):
    """There is such a voice, but it cannot be read now."""
