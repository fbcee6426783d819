"""Decodes an uploaded recording, measures its quality, and encodes it as it is stored."""

from __future__ import annotations

from dataclasses import dataclass

from avatar_site.lib.problems import ProblemError
from inference.audio.decode import AudioTooLong, DamagedAudio, UnsupportedAudio, decode
from inference.audio.encode import encode_flac
from inference.audio.pcm import pcm_from_float
from voices.recordings.quality import MAX_DURATION_S, RecordingQuality, measure_quality

MAX_UPLOAD_BYTES = 20 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ExaminedRecording:
    """A recording that was accepted. `flac` is what is stored: mono, at the rate it came with."""

    flac: bytes
    quality: RecordingQuality


def examine_upload(audio: bytes) -> ExaminedRecording:
    """Decode and measure an uploaded recording. Raises ProblemError, which says what to do about it."""
    if not audio:
        raise ProblemError("audio_required", field="audio")
    if len(audio) > MAX_UPLOAD_BYTES:
        raise ProblemError("audio_too_large", field="audio")
    try:
        decoded = decode(audio, max_s=MAX_DURATION_S)
    except UnsupportedAudio as error:
        raise ProblemError("audio_unsupported", field="audio", detail=str(error)) from error
    except DamagedAudio as error:
        raise ProblemError("audio_damaged", field="audio", detail=str(error)) from error
    except AudioTooLong as error:
        raise ProblemError("audio_too_long", field="audio", detail=str(error)) from error
    quality = measure_quality(decoded.samples, decoded.sample_rate_hz)
    if quality.refusal:
        raise ProblemError(quality.refusal, field="audio")
    return ExaminedRecording(encode_flac(pcm_from_float(decoded.samples), decoded.sample_rate_hz), quality)
