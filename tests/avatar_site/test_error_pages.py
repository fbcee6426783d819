from __future__ import annotations

import errno

from django.http import HttpResponseBase
from django.test import RequestFactory
from django.utils import translation

from avatar_site.error_pages import server_error


def respond(error: Exception) -> HttpResponseBase:
    """Return the response of a page whose view raised `error`."""
    try:
        raise error
    except type(error):
        with translation.override("zh-hant"):
            return server_error(RequestFactory().get("/"))


class TestServerError:
    def test_is_a_whole_page_in_the_readers_language(self) -> None:
        response = respond(KeyError("broken"))

        page = response.content.decode()  # type: ignore[attr-defined]  # not streamed
        assert response.status_code == 500
        assert page.startswith("<!doctype html>")
        assert "<title>系統出了一點問題 · AVATAR</title>" in page
        assert page.count("系統出了一點問題") == 2
        assert "回到對話" in page

    def test_names_a_full_disk(self) -> None:
        response = respond(OSError(errno.ENOSPC, "No space left on device"))

        page = response.content.decode()  # type: ignore[attr-defined]  # not streamed
        assert response.status_code == 507
        assert "<title>磁碟空間已滿 · AVATAR</title>" in page
        assert "回到對話" in page
