from __future__ import annotations

import pytest

from realtime.call.replies import are_same_words, normalise_words


class TestNormaliseWords:
    @pytest.mark.parametrize(
        ("text", "normal"),
        [
            ("What's the time?", "whatsthetime"),
            ("你好， 嗎？\n", "你好嗎"),
            ("ＡＢＣ１２３", "abc123"),
            ("Straße", "strasse"),
            ("It is 3.5, or -5.", "itis3.5or-5"),
            ("12:30 到 1,000", "12:30到1,000"),
            ("50% off", "50%off"),
            ("5+3=8", "5+3=8"),
            ("……？！", ""),
        ],
    )
    def test_leaves_out_what_a_reply_does_not_depend_on(self, text: str, normal: str) -> None:
        assert normalise_words(text) == normal


class TestAreSameWords:
    def test_compares_what_is_nothing_but_punctuation_as_it_is(self) -> None:
        assert are_same_words("？", "？")
        assert not are_same_words("？", "！")
