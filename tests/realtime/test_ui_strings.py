from __future__ import annotations

import pytest
from django.utils import translation

from avatar_site.lib.problems import PROBLEMS
from realtime.messages import ErrorCode
from realtime.ui_strings import negotiate_language, translate_error


class TestLanguage:
    @pytest.mark.parametrize(
        ("headers", "language"),
        [
            ([(b"accept-language", b"en-GB,en;q=0.9")], "en"),
            ([(b"accept-language", b"zh-TW,zh;q=0.9")], "zh-hant"),
            ([(b"accept-language", b"en"), (b"cookie", b"django_language=zh-hant")], "zh-hant"),
            ([], "zh-hant"),
        ],
    )
    def test_is_the_cookies_or_the_browsers(self, headers: list[tuple[bytes, bytes]], language: str) -> None:
        assert negotiate_language(headers) == language
        assert translation.get_language() == "zh-hant"


class TestErrors:
    @pytest.mark.parametrize("code", ErrorCode)
    def test_have_a_sentence_of_their_own_in_both_languages(self, code: ErrorCode) -> None:
        english, chinese = translate_error(code, "en"), translate_error(code, "zh-hant")

        assert english != chinese
        assert english != str(PROBLEMS["internal"].sentence)
