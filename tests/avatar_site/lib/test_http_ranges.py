from __future__ import annotations

import json

import pytest

from avatar_site.lib.http_ranges import respond_with_audio, respond_with_range

CONTENT = b"0123456789"


class TestRespondWithRange:
    @pytest.mark.parametrize(
        ("wanted", "status", "content"),
        [
            ("bytes=0-3", 206, b"0123"),
            ("bytes=7-", 206, b"789"),
            ("bytes=-2", 206, b"89"),
            ("bytes=5-99", 206, b"56789"),
            ("", 200, CONTENT),
            ("bytes=-", 200, CONTENT),
            ("pages=1-2", 200, CONTENT),
            (f"bytes={'1' * 5000}-", 200, CONTENT),
            (f"bytes=0-{'1' * 5000}", 200, CONTENT),
            (f"bytes=-{'1' * 5000}", 200, CONTENT),
            ("bytes=²-", 200, CONTENT),
        ],
    )
    def test_answers(self, wanted: str, status: int, content: bytes) -> None:
        response = respond_with_range(CONTENT, wanted)

        assert (response.status_code, response.content) == (status, content)

    @pytest.mark.parametrize("wanted", ["bytes=10-", "bytes=-0", "bytes=6-5"])
    def test_says_where_nothing_is_left(self, wanted: str) -> None:
        response = respond_with_audio(CONTENT, content_type="audio/wav", filename="a.wav", wanted=wanted)

        assert (response.status_code, response.headers["Content-Range"]) == (416, "bytes */10")
        assert response.headers["Content-Type"] == "application/json"
        assert json.loads(response.content)["code"] == "range_invalid"
