import io
import zipfile

import numpy as np
import pytest
import soundfile

from inference.audio import decode as decoding
from inference.audio.containers import Container
from inference.audio.decode import (
    AudioTooLong,
    DamagedAudio,
    UnsupportedAudio,
    decode,
)
from tests.sounds import CONTAINERS, RATE_HZ, encode, make_speech

SPEECH = make_speech(5.0)


class TestDecode:
    @pytest.mark.parametrize("container", CONTAINERS)
    def test_reads_all_six_containers_by_their_content(self, container: str) -> None:
        decoded = decode(encode(SPEECH, container), max_s=60)

        assert decoded.container == container
        assert decoded.duration_s == pytest.approx(5.0, abs=0.15)
        level = np.sqrt(np.mean(np.square(decoded.samples)))
        assert level == pytest.approx(np.sqrt(np.mean(np.square(SPEECH))), rel=0.1)

    def test_makes_one_channel_of_several(self) -> None:
        file = io.BytesIO()
        soundfile.write(file, np.stack([SPEECH, SPEECH * 0.5], axis=1), RATE_HZ, format="WAV")

        decoded = decode(file.getvalue(), max_s=60)

        assert decoded.samples.ndim == 1
        assert np.abs(decoded.samples - SPEECH * 0.75).max() < 0.001

    def test_hears_channels_that_would_cancel_each_other_out(self) -> None:
        file = io.BytesIO()
        soundfile.write(file, np.stack([SPEECH, -SPEECH], axis=1), RATE_HZ, format="WAV")

        assert np.abs(decode(file.getvalue(), max_s=60).samples).max() > 0.3

    def test_keeps_no_more_than_48_khz(self) -> None:
        file = io.BytesIO()
        soundfile.write(file, make_speech(2.0, rate_hz=96_000), 96_000, format="FLAC")

        decoded = decode(file.getvalue(), max_s=60)

        assert decoded.sample_rate_hz == 48_000
        assert decoded.duration_s == pytest.approx(2.0, abs=0.01)

    def test_makes_numbers_of_what_is_none(self) -> None:
        file = io.BytesIO()
        soundfile.write(file, np.array([np.nan, np.inf, -np.inf, 0.5] * 9000), 16_000, format="WAV", subtype="FLOAT")

        samples = decode(file.getvalue(), max_s=60).samples

        assert np.isfinite(samples).all()
        assert np.abs(samples).max() <= 1.0


class TestRefusals:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1/x.wav\n",
            b"ffconcat version 1.0\nfile '/etc/passwd'\n",
            b"<!DOCTYPE html><html><body>hello</body></html>",
            b"FORM\0\0\0\x10AIFFCOMM",
            b"\x89PNG\r\n\x1a\n" + bytes(100),
            b"%PDF-1.7\n" + bytes(100),
            b"just some words " * 100,
        ],
        ids=["nothing", "playlist", "ffconcat", "html", "aiff", "png", "pdf", "text"],
    )
    def test_of_what_is_no_recording(self, content: bytes) -> None:
        with pytest.raises(UnsupportedAudio):
            decode(content, max_s=60)

    def test_of_a_zip(self) -> None:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("speech.wav", encode(SPEECH, "wav"))

        with pytest.raises(UnsupportedAudio):
            decode(file.getvalue(), max_s=60)

    @pytest.mark.parametrize(
        "inside", [b"<html></html>" * 50, b"#EXTM3U\nhttp://127.0.0.1/x\n", b"ffconcat version 1.0\n"]
    )
    @pytest.mark.parametrize(
        "start", [b"\x1a\x45\xdf\xa3", b"\0\0\0\x20ftypM4A ", b"fLaC", b"ID3\x04\0\0\0\0\0\0", b"OggS\0\x04"]
    )
    def test_of_what_only_begins_like_one(self, start: bytes, inside: bytes) -> None:
        with pytest.raises((DamagedAudio, UnsupportedAudio)):
            decode(start + inside, max_s=60)

    @pytest.mark.parametrize("container", CONTAINERS)
    def test_of_a_truncated_file(self, container: str) -> None:
        whole = encode(SPEECH, container)

        with pytest.raises(DamagedAudio):
            decode(whole[: len(whole) * 6 // 10], max_s=60)

    @pytest.mark.parametrize("container", ["wav", "flac", "ogg", "mp3", "m4a", "webm"])
    def test_of_a_decompression_bomb_takes_no_more_memory_than_allowed(
        self, container: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bomb = encode(np.zeros(8_000 * 100, np.float32) + 0.01, container, rate_hz=8_000)
        taken: list[int] = []
        mix_down = decoding._mix_down
        monkeypatch.setattr(decoding, "_mix_down", lambda block: taken.append(block.shape[1]) or mix_down(block))

        with pytest.raises(AudioTooLong):
            decode(bomb, max_s=10)

        assert sum(taken) <= 10 * 48_000 + 65_536

    def test_of_a_video_without_sound(self) -> None:
        import av

        file = io.BytesIO()
        with av.open(file, "w", format="webm") as out:
            stream = out.add_stream("libvpx", rate=10)
            stream.width = stream.height = 16
            stream.pix_fmt = "yuv420p"
            for _ in range(10):
                frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))

        with pytest.raises(UnsupportedAudio):
            decode(file.getvalue(), max_s=60)

    def test_of_rates_that_no_microphone_has(self) -> None:
        file = io.BytesIO()
        soundfile.write(file, SPEECH[:4000], 4_000, format="WAV")

        with pytest.raises(UnsupportedAudio):
            decode(file.getvalue(), max_s=60)

    def test_of_a_wav_that_says_it_holds_more_than_it_does(self) -> None:
        whole = bytearray(encode(SPEECH, "wav"))
        whole[whole.index(b"data") + 4 : whole.index(b"data") + 8] = (2**31).to_bytes(4, "little")

        with pytest.raises(DamagedAudio):
            decode(bytes(whole), max_s=60)


class TestTruncation:
    @pytest.mark.parametrize("container", CONTAINERS)
    @pytest.mark.parametrize("share", [0.3, 0.6, 0.89])
    def test_is_refused_wherever_the_file_was_cut(self, container: str, share: float) -> None:
        whole = encode(SPEECH, container)

        with pytest.raises(DamagedAudio):
            decode(whole[: int(len(whole) * share)], max_s=60)

    @pytest.mark.parametrize("share", [0.97, 0.99, 0.995])
    def test_of_an_index_at_the_end_is_refused(self, share: float) -> None:
        whole = encode(SPEECH, "m4a")

        with pytest.raises(DamagedAudio):
            decode(whole[: int(len(whole) * share)], max_s=60)

    def test_is_taken_where_that_is_allowed(self) -> None:
        whole = encode(SPEECH, "wav")

        decoded = decode(whole[: len(whole) * 6 // 10], max_s=60, may_be_truncated=True)

        assert decoded.duration_s == pytest.approx(3.0, abs=0.01)

    @pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
    def test_is_not_told_by_the_sizes_of_a_recorder_that_writes_to_a_pipe(self, size: int) -> None:
        streamed = bytearray(encode(SPEECH, "wav"))
        for place in (4, streamed.index(b"data") + 4):
            streamed[place : place + 4] = size.to_bytes(4, "little")

        assert decode(bytes(streamed), max_s=60).duration_s == pytest.approx(5.0, abs=0.01)


class TestTheCallersTerms:
    def test_name_the_containers(self) -> None:
        with pytest.raises(UnsupportedAudio, match="flac: expected wav, webm"):
            decode(encode(SPEECH, "flac"), max_s=60, accepted=(Container.WAV, Container.WEBM))

    @pytest.mark.parametrize("container", ["wav", "webm"])
    def test_name_the_rate(self, container: str) -> None:
        decoded = decode(encode(SPEECH, container), max_s=60, sample_rate_hz=16_000)

        assert decoded.sample_rate_hz == 16_000
        assert decoded.duration_s == pytest.approx(5.0, abs=0.15)
