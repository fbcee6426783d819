"""What an engine has to be told to speak in somebody's voice."""

from __future__ import annotations

from dataclasses import dataclass

from inference.interfaces import SynthesisOptions, VoiceReference
from voices.models import Kind, VoiceProfile
from voices.recordings import decoding


@dataclass(frozen=True, slots=True)
class VoiceSound:
    """A key of the engine's own voices or a blend of them, a fitted style, a recording to speak like: what there is."""

    engine_voice: str = ""
    style: bytes = b""
    reference: VoiceReference | None = None

    def as_options(self) -> SynthesisOptions:
        return SynthesisOptions(voice=self.engine_voice, style=self.style, reference=self.reference)


def read_sound(profile: VoiceProfile) -> VoiceSound:
    """Return how a voice sounds. Reads its clip from the storage; without it a cloned voice is the engine's default."""
    reference = None
    if profile.kind == Kind.CLONED and profile.clip:
        with profile.clip.open("rb") as file:
            samples, sample_rate_hz = decoding.decode_flac(file.read())
        reference = VoiceReference(decoding.to_pcm(samples), sample_rate_hz, profile.clip_transcript)
    return VoiceSound(profile.engine_voice, bytes(profile.style), reference)
