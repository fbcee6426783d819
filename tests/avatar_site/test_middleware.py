import warnings

import pytest
from django.test import AsyncClient, Client


class TestBrowserPolicy:
    def test_allows_the_microphone_and_only_our_own_scripts(self, client: Client, db: None) -> None:
        response = client.get("/accounts/login/", HTTP_HOST="localhost")

        assert "microphone=(self)" in response.headers["Permissions-Policy"]
        assert "script-src 'self';" in response.headers["Content-Security-Policy"]
        assert response.headers["X-Frame-Options"] == "DENY"
        assert response.headers["X-Content-Type-Options"] == "nosniff"

    def test_lets_the_admin_run_its_inline_scripts(self, admin_client: Client) -> None:
        response = admin_client.get("/admin/")

        assert response.status_code == 200
        assert "script-src 'self' 'unsafe-inline'" in response.headers["Content-Security-Policy"]


class TestStaticFiles:
    async def test_are_served_over_asgi_without_a_warning(self, async_client: AsyncClient) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            response = await async_client.get("/static/admin/js/core.js")

        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/javascript")
        assert b"'use strict'" in response.content

    async def test_are_not_sent_again_when_nothing_has_changed(self, async_client: AsyncClient) -> None:
        first = await async_client.get("/static/admin/js/core.js")

        again = await async_client.get(
            "/static/admin/js/core.js", headers={"If-Modified-Since": first.headers["Last-Modified"]}
        )

        assert again.status_code == 304
        assert again.content == b""

    @pytest.mark.django_db
    def test_do_not_lead_out_of_their_folder(self, client: Client) -> None:
        assert client.get("/static/../manage.py").status_code == 404
