from __future__ import annotations

import pytest

from inference.audio.durations import compute_duration_s
from inference.interfaces import MICROPHONE_SAMPLE_RATE_HZ
from realtime.audio_input import decode_audio
from realtime.call.utterance import AudioDecodingError, AudioTooLong
from realtime.messages import AudioFormat
from tests.sounds import encode, make_speech

SPEECH = make_speech(2.0)


class TestDecodeAudio:
    @pytest.mark.parametrize("kind", [AudioFormat.WAV, AudioFormat.WEBM])
    async def test_returns_pcm_at_the_microphones_rate(self, kind: AudioFormat) -> None:
        pcm = await decode_audio(encode(SPEECH, kind.value), kind, max_ms=10_000)

        assert compute_duration_s(pcm, MICROPHONE_SAMPLE_RATE_HZ) == pytest.approx(2.0, abs=0.05)

    @pytest.mark.parametrize("kind", [AudioFormat.WAV, AudioFormat.WEBM])
    async def test_refuses_more_than_an_utterance_holds(self, kind: AudioFormat) -> None:
        with pytest.raises(AudioTooLong):
            await decode_audio(encode(SPEECH, kind.value), kind, max_ms=1000)

    @pytest.mark.parametrize(
        ("container", "kind"),
        [("flac", AudioFormat.WAV), ("m4a", AudioFormat.WEBM), ("webm", AudioFormat.WAV), ("wav", AudioFormat.WEBM)],
    )
    async def test_refuses_another_container_than_was_announced(self, container: str, kind: AudioFormat) -> None:
        with pytest.raises(AudioDecodingError, match=f"not {kind}"):
            await decode_audio(encode(SPEECH, container), kind, max_ms=10_000)

    async def test_takes_a_recording_that_was_cut_off(self) -> None:
        whole = encode(SPEECH, "wav")

        pcm = await decode_audio(whole[: len(whole) // 2], AudioFormat.WAV, max_ms=10_000)

        assert compute_duration_s(pcm, MICROPHONE_SAMPLE_RATE_HZ) == pytest.approx(1.0, abs=0.05)

    async def test_refuses_noise_with_a_signature(self) -> None:
        with pytest.raises(AudioDecodingError):
            await decode_audio(b"RIFF" + bytes(range(256)) * 10, AudioFormat.WAV, max_ms=10_000)
