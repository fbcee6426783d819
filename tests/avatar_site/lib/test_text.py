from __future__ import annotations

import pytest

from avatar_site.lib.text import clean_line, strip_unseen


class TestStripUnseen:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("invoice\u202egpj.exe", "invoicegpj.exe"),
            ("\u2066a\u2069\u200f\u061c", "a"),
            ("a\0b\x1b[31mc\x9b", "ab[31mc"),
            ("\ufeffa\u200bb\u00adc\u2060d", "abcd"),
            ("one\r\ntwo\rthree\u2028four\x85five", "one\ntwo\nthree\nfour\nfive"),
            ("\ttab stays", "\ttab stays"),
            ("👩\u200d👩\u200d👧 and नम\u200dस्ते", "👩\u200d👩\u200d👧 and नम\u200dस्ते"),
            ("今天天氣很好。", "今天天氣很好。"),
        ],
    )
    def test_removes_what_reorders_or_hides_text(self, text: str, shown: str) -> None:
        assert strip_unseen(text) == shown


class TestCleanLine:
    def test_is_one_line(self) -> None:
        assert clean_line(" a \n\u202eb\u2029c ") == "a b c"
