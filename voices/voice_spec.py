"""What a text-to-speech engine needs to know of a voice: its key or blend, a fitted style, a reference clip."""

from __future__ import annotations

from dataclasses import dataclass

from inference.audio.decode import decode
from inference.audio.pcm import pcm_from_float
from inference.interfaces import SynthesisOptions, VoiceReference
from voices.models import Kind, VoiceProfile
from voices.recordings.quality import MAX_DURATION_S


@dataclass(frozen=True, slots=True)
class VoiceSpec:
    """Empty fields are not known: a stock voice has only its key, a cloned voice only its reference."""

    engine_voice: str = ""
    style: bytes = b""
    reference: VoiceReference | None = None

    def as_options(self) -> SynthesisOptions:
        return SynthesisOptions(voice=self.engine_voice, style=self.style, reference=self.reference)


def read_voice_spec(profile: VoiceProfile) -> VoiceSpec:
    """
    Return the spec of a voice. A cloned voice without its clip is spoken in the engine's default voice.

    Reads the clip from the storage: raises OSError, or AudioError if the clip is damaged.
    """
    reference = None
    if profile.kind == Kind.CLONED and profile.clip:
        with profile.clip.open("rb") as file:
            clip = decode(file.read(), max_s=MAX_DURATION_S)
        reference = VoiceReference(pcm_from_float(clip.samples), clip.sample_rate_hz, profile.clip_transcript)
    return VoiceSpec(profile.engine_voice, bytes(profile.style), reference)
