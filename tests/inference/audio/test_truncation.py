"""Each check catches a cut that the decoder alone does not notice: without the check these files would be accepted."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from inference.audio import decode as decode_module
from inference.audio.containers import Container
from inference.audio.decode import DamagedAudio, decode
from inference.audio.truncation import is_complete_mp3, is_complete_ogg, is_complete_wav
from tests.sounds import RATE_HZ, encode, make_speech

SPEECH = make_speech(5.0)
CUTS = (0.3, 0.6, 0.601, 0.9, 0.97, 0.995)


def encode_mp3_as_a_dictation_machine(*, rate_hz: int, bit_rate: int, tag: bool) -> bytes:
    """Constant bit rate, without the header in which other encoders count the frames."""
    file = io.BytesIO()
    options = {"write_xing": "0", "id3v2_version": "3" if tag else "0"}
    with av.open(file, "w", format="mp3", options=options) as out:
        stream = out.add_stream("libmp3lame", rate=rate_hz, layout="mono")
        stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(SPEECH[np.newaxis], format="flt", layout="mono")
        frame.sample_rate = RATE_HZ
        resampler = av.AudioResampler(format=stream.codec_context.format.name, layout="mono", rate=rate_hz)
        for part in (frame, None):
            for piece in resampler.resample(part):
                out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return file.getvalue()


FILES = {
    "wav": (encode(SPEECH, "wav"), is_complete_wav),
    "ogg": (encode(SPEECH, "ogg"), is_complete_ogg),
    "mp3": (encode_mp3_as_a_dictation_machine(rate_hz=24_000, bit_rate=64_000, tag=False), is_complete_mp3),
    "mp3 of MPEG 1 with a tag": (
        encode_mp3_as_a_dictation_machine(rate_hz=44_100, bit_rate=128_000, tag=True),
        is_complete_mp3,
    ),
}


@pytest.mark.parametrize("name", FILES)
class TestCompleteness:
    def test_is_seen_in_a_whole_file(self, name: str) -> None:
        data, is_complete = FILES[name]

        assert is_complete(data)
        assert decode(data, max_s=60).duration_s == pytest.approx(5.0, abs=0.15)

    @pytest.mark.parametrize("share", CUTS)
    def test_is_missed_wherever_the_file_was_cut(self, name: str, share: float) -> None:
        data, is_complete = FILES[name]
        cut = data[: int(len(data) * share)]

        assert not is_complete(cut)
        with pytest.raises(DamagedAudio, match="ends too early"):
            decode(cut, max_s=60)

    def test_is_not_seen_by_the_decoder(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """When a library learns it, the check can go."""
        data, _ = FILES[name]
        monkeypatch.setitem(decode_module._IS_COMPLETE, Container(name[:3]), lambda data: True)

        assert decode(data[: len(data) * 6 // 10], max_s=60).duration_s < 4
