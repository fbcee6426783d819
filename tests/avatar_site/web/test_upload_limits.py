import json

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from avatar_site.web.server import Head
from avatar_site.web.upload_limits import SiteGate

MIB = 1024 * 1024
VOICE = "/api/voice-profiles/0d5a8f9e-4f0c-4a0a-9a57-1a7a2c8b6e11"


def make_head(path: str, *, cookie: str = "", language: str = "en") -> Head:
    return Head(path=path, cookie=cookie, accept_language=language)


class TestHowMuchMayBeSent:
    @pytest.mark.parametrize(
        ("path", "mib"),
        [
            ("/api/voice-profiles", 20),
            ("/api/voice-profile", 20),
            (f"{VOICE}/recordings", 20),
            ("/api/voice-profiles/import", 100),
            (f"{VOICE}/preview", 1),
            ("/api/conversations/export", 1),
            ("/accounts/login/", 1),
            ("/admin/voices/voiceprofile/", 1),
            ("/nowhere", 1),
            ("*", 1),
        ],
    )
    def test_depends_on_the_address(self, path: str, mib: int) -> None:
        most_bytes = SiteGate().decide_max_bytes(make_head(path))

        assert mib * MIB <= most_bytes <= mib * MIB + 64 * 1024

    def test_is_for_strangers_what_every_address_takes(self) -> None:
        assert SiteGate().max_anonymous_bytes == MIB


class TestWhoIsKnown:
    # The lookup has a connection of its own.
    @pytest.mark.django_db(transaction=True)
    async def test_is_whoever_is_logged_in(self, alice: User) -> None:
        client = Client()
        await client.aforce_login(alice)
        cookie = f"csrftoken=x; {settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"

        assert await SiteGate().is_logged_in(make_head("/api/voice-profiles", cookie=cookie))

        await client.alogout()

        assert not await SiteGate().is_logged_in(make_head("/api/voice-profiles", cookie=cookie))

    async def test_is_nobody_without_a_session_and_nothing_is_looked_up(self) -> None:
        # Without the `db` mark a query would fail.
        assert not await SiteGate().is_logged_in(make_head("/api/voice-profiles", cookie="csrftoken=x"))


class TestARefusal:
    @pytest.mark.parametrize(
        ("path", "code", "field"),
        [
            ("/api/voice-profiles", "audio_too_large", "audio"),
            (f"{VOICE}/recordings", "audio_too_large", "audio"),
            ("/api/voice-profiles/import", "archive_too_large", "file"),
            ("/api/voice-default", "request_too_large", None),
        ],
    )
    def test_speaks_as_the_api_does(self, path: str, code: str, field: str | None) -> None:
        refusal = SiteGate().refuse_size(make_head(path))

        answer = json.loads(refusal.body)
        assert (refusal.status, refusal.content_type) == (413, "application/json")
        assert (answer["code"], answer.get("field")) == (code, field)

    def test_speaks_the_language_of_the_person(self) -> None:
        by_browser = SiteGate().refuse_size(make_head("/api/voice-profiles", language="zh-TW"))
        by_choice = SiteGate().refuse_size(
            make_head("/api/voice-profiles", cookie=f"{settings.LANGUAGE_COOKIE_NAME}=zh-hant", language="en")
        )
        english = SiteGate().refuse_size(make_head("/api/voice-profiles", language="en"))

        assert "超過 20 MB" in json.loads(by_browser.body)["detail"]
        assert by_choice == by_browser
        assert "larger than 20 MB" in json.loads(english.body)["detail"]

    def test_is_plain_on_pages(self) -> None:
        refusal = SiteGate().refuse_size(make_head("/accounts/login/"))

        assert refusal.status == 413
        assert refusal.content_type.startswith("text/plain")
        assert refusal.body.decode() == "This is more than can be sent here. Nothing of it was kept.\n"

    def test_tells_strangers_to_log_in(self) -> None:
        refusal = SiteGate().refuse_anonymous(make_head("/api/voice-profiles"))

        assert (refusal.status, json.loads(refusal.body)["code"]) == (403, "not_logged_in")
