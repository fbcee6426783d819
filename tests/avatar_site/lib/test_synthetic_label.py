from __future__ import annotations

import struct

from avatar_site.lib.synthetic_label import SYNTHETIC_COMMENT, make_wav


class TestMakeWav:
    def test_has_the_label_before_the_samples(self) -> None:
        wav = make_wav(b"\1\0" * 10, 24_000)

        assert wav.index(b"ISFT") < wav.index(SYNTHETIC_COMMENT.encode()) < wav.index(b"data")
        assert struct.unpack_from("<I", wav, 4)[0] == len(wav) - 8
