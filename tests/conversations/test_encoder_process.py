from __future__ import annotations

import contextlib
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from conversations.encoder_process import NICENESS, Encoder, EncodingFailed
from tests.fakes import SPEECH


@pytest.fixture
def encoder() -> Iterator[Encoder]:
    encoder = Encoder()
    yield encoder
    encoder.close()


def encode(encoder: Encoder, pcm: bytes = SPEECH, audio_format: str = "flac") -> bytes:
    return encoder.encode(pcm, 16_000, audio_format=audio_format, is_synthetic=True)


class TestEncoder:
    def test_works_behind_everybody_else(self, encoder: Encoder) -> None:
        own = os.getpriority(os.PRIO_PROCESS, 0)
        kept, _ = soundfile.read(io.BytesIO(encode(encoder)), dtype="int16")
        opus = encode(encoder, audio_format="opus")

        assert kept.tobytes() == SPEECH
        assert opus.startswith(b"OggS")
        assert b"Synthetic speech" in opus
        assert encoder._process is not None
        assert os.getpriority(os.PRIO_PROCESS, encoder._process.pid) == min(19, own + NICENESS)
        assert os.getpriority(os.PRIO_PROCESS, 0) == own

    def test_says_what_cannot_be_encoded_and_goes_on(self, encoder: Encoder) -> None:
        with pytest.raises(EncodingFailed, match="ValueError"):
            encode(encoder, SPEECH[:-1])

        assert encode(encoder)

    def test_starts_again_when_its_process_was_killed(self, encoder: Encoder) -> None:
        encode(encoder)
        assert encoder._process is not None
        os.kill(encoder._process.pid, signal.SIGKILL)

        assert encode(encoder)

    def test_ends_its_process_when_nothing_is_to_do(self) -> None:
        encoder = Encoder(idle_s=0.0)
        encoder._process = process = encoder._start()

        assert process.wait(30) == 0
        encoder.close()

    def test_ends_a_process_that_hangs(self) -> None:
        encoder = Encoder(timeout_s=0.1)
        encoder._process = process = encoder._start()
        os.kill(process.pid, signal.SIGSTOP)

        # Not that the next one is slow to start: the requirement is that no caller waits for the first.
        with contextlib.suppress(EncodingFailed):
            encode(encoder, SPEECH * 100)

        assert process.returncode == -signal.SIGKILL
        encoder.close()

    def test_is_small(self, encoder: Encoder) -> None:
        """Without Django: measured 48 MB."""
        encode(encoder)

        assert encoder._process is not None
        status = Path(f"/proc/{encoder._process.pid}/status").read_text(encoding="ascii")
        assert int(status.split("VmRSS:")[1].split()[0]) < 80_000
