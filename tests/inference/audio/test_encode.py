from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import soundfile

from inference.audio.decode import decode
from inference.audio.encode import encode_flac, encode_opus, encode_wav
from inference.audio.pcm import pcm_from_float
from tests.sounds import RATE_HZ, make_speech

PCM = np.random.default_rng(1).integers(-32768, 32767, 5000).astype("<i2").tobytes()
SPEECH = make_speech(2.0)


class TestLosslessFiles:
    @pytest.mark.parametrize("encode", [encode_wav, encode_flac])
    def test_give_16_bits_back_unchanged(self, encode: Callable[..., bytes]) -> None:
        decoded = decode(encode(PCM, 24_000), max_s=1)

        assert (pcm_from_float(decoded.samples), decoded.sample_rate_hz) == (PCM, 24_000)

    @pytest.mark.parametrize("encode", [encode_wav, encode_flac])
    def test_say_what_they_are(self, encode: Callable[..., bytes]) -> None:
        data = encode(PCM, 24_000, comment="made up", software="AVATAR")

        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            assert sound.comment == "made up"
            assert sound.software.startswith("AVATAR")

    def test_say_it_before_the_sound(self) -> None:
        data = encode_wav(PCM, 24_000, comment="made up", software="AVATAR")

        assert data.index(b"AVATAR\0") < data.index(b"made up\0") < data.index(b"data")

    @pytest.mark.parametrize("encode", [encode_wav, encode_flac, encode_opus])
    def test_are_not_made_of_half_a_sample(self, encode: Callable[..., bytes]) -> None:
        with pytest.raises(ValueError, match="multiple"):
            encode(PCM[:-1], 24_000)


class TestOpus:
    @pytest.mark.parametrize("rate_hz", [16_000, 22_050, 24_000])
    def test_keeps_speech_at_any_rate(self, rate_hz: int) -> None:
        speech = make_speech(2.0, rate_hz=rate_hz)

        decoded = decode(encode_opus(pcm_from_float(speech), rate_hz), max_s=10)

        assert decoded.duration_s == pytest.approx(2.0, abs=0.05)
        assert np.std(decoded.samples) == pytest.approx(np.std(speech), rel=0.1)

    def test_is_small_and_says_what_it_is(self) -> None:
        pcm = pcm_from_float(SPEECH)

        data = encode_opus(pcm, RATE_HZ, comment="made up")

        assert len(data) < len(pcm) / 8
        assert data.startswith(b"OggS")
        assert b"made up" in data
