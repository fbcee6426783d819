"""What all addresses of the API share: refusals in one form, whatever is sent; no JSON in caches; a true schema."""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_from_bytes

import jsonschema
import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from drf_spectacular.generators import SchemaGenerator

from avatar_site.lib import inference_client
from tests import factories
from tests.fakes import FakeInference, make_inference
from tests.files import list_files
from voices import services
from voices.models import Consent, VoiceProfile

METHODS = ("get", "head", "post", "put", "patch", "delete", "options")


def list_api_views(patterns: list[Any] | None = None, prefix: str = "/") -> Iterator[tuple[str, type]]:
    """Yield each address under /api/ and its view's class, without the singular paths, which name the same views."""
    for each in get_resolver().url_patterns if patterns is None else patterns:
        route = prefix + str(each.pattern)
        if isinstance(each, URLResolver):
            yield from list_api_views(each.url_patterns, route)
        elif isinstance(each, URLPattern) and route.startswith("/api/") and "/voice-profile/" not in route + "/":
            yield route, getattr(each.callback, "view_class", type(None))


VIEWS = dict(list_api_views())
#: Their forms are drf-spectacular's; the schema takes a tenth of a second each time.
NOT_OURS = ("/api/schema", "/api/docs")


@dataclass(frozen=True, slots=True)
class Things:
    """One of everything that an address can name, all of it Alice's."""

    profile_id: uuid.UUID
    recording_id: uuid.UUID
    preview_id: uuid.UUID
    conversation_id: uuid.UUID
    turn_id: uuid.UUID

    def fill_in(self, route: str) -> str:
        for name in self.__dataclass_fields__:
            route = route.replace(f"<uuid:{name}>", str(getattr(self, name)))
        assert "<" not in route
        return route


@pytest.fixture
def inference(monkeypatch: pytest.MonkeyPatch) -> FakeInference:
    fake = make_inference("今天天氣很好，我們去公園走走。")
    monkeypatch.setattr(inference_client, "get_inference", lambda: fake)
    return fake


@pytest.fixture
def things(alice: User, inference: FakeInference) -> Things:
    profile = factories.upload_voice(alice)
    VoiceProfile.objects.filter(pk=profile.pk).update(engine_voice="zf_xiaoxiao", version=1)
    factories.set_job(profile, "build", state="done")
    profile.refresh_from_db()
    preview, _ = services.preview(profile=profile, user=alice, text="你好")
    conversation = factories.create_conversation(alice, title="天氣")
    turn = factories.create_turn(conversation, text="今天天氣怎麼樣？", audio=factories.make_flac())
    recording = profile.recordings.get()
    return Things(profile.pk, recording.pk, preview.pk, conversation.pk, turn.pk)


FIELDS = (
    *("name", "text", "title", "ids", "all", "is_pinned", "audio_days", "text_days", "language", "quality"),
    *("is_shared", "consent_attestation", "consent_text_sha256"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 10**30, 1e308, [], {}, [None], [[1]], {"a": 1}, "", "\0", "a\0b", "\ud800", "x" * 20_000),
    *("\u202e", "9" * 5000, "0001-01-01"),
)
BODIES = (
    *(b"", b"null", b"[]", b"{}", b'"x"', b"1", b"1e999", b"NaN", b"9" * 5000, b"\xff\xfe", b"{"),
    *(b"[" * 100_000, b'{"a":' * 100_000, b"[" * 900 + b"]" * 900),
    *(json.dumps(dict.fromkeys(FIELDS, value)).encode() for value in VALUES),
)
CONTENT_TYPES = (
    *("application/json; charset=base64", "application/json; charset=undefined", "application/json; charset=utf-16"),
    *("application/json; charset=nonsense", "multipart/form-data", "multipart/form-data; boundary=\u00e9"),
    *("multipart/form-data; boundary=x", "text/plain", "", "\0", "application/x-www-form-urlencoded; charset=idna"),
)
FORMS = (
    b"name=%00&text=%00&ids=%00",
    b"name=%ED%A0%80&ids=%ED%A0%80",
    b"&".join(b"a%d=1" % number for number in range(2_000)),
)
MULTIPARTS = tuple(
    b"".join(
        b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value) for name in FIELDS
    )
    + b'--x\r\nContent-Disposition: form-data; name="audio"; filename="a%b.wav"\r\n\r\n%b\r\n--x--\r\n' % (value, value)
    for value in (b"", b"\0", b"\xed\xa0\x80", b"\xff", b"own_voice", b"9" * 5000)
)
QUERIES = tuple(
    f"{name}={quote_from_bytes(value)}"
    for name in ("page", "page_size", "scope", "q", "from", "to", "voice", "pinned", "ordering", "download", "format")
    for value in (
        *(b"", b"\0", b"-1", b"0", b"9" * 5000, b"1e999", b"NaN", b"\xed\xa0\x80", b"\xff", b"deleted"),
        *(b"0001-01-01", b"9999-12-31", b"0000-00-00", b"\xe2\x80\xae", b'"' * 200, b"{}", b"*"),
    )
)
HEADERS = (
    {"Range": "bytes=" + "9" * 5000 + "-"},
    {"Range": "bytes=-0,1-2,\0"},
    {"If-None-Match": '"\xff'},
    {"Accept": "\0/*;q=x"},
    {"Accept": "text/html"},
    {"Accept-Language": "x" * 600},
    {"Content-Length": "9" * 30},
)


def check_answer(response: HttpResponse, *told: object) -> None:
    """A refusal is JSON in the project's form, and no JSON may be kept."""
    assert response.status_code < 500, told
    kind = response.headers.get("Content-Type", "")
    if response.status_code >= 400 and response.content and told[0] not in NOT_OURS:
        assert kind.startswith("application/json"), told
        body = response.json()
        assert set(body) - {"field"} == {"code", "detail"}, told
        assert body["detail"], told
    if kind.startswith("application/json"):
        assert "no-store" in response.headers["Cache-Control"], told


def list_methods(view: type) -> list[str]:
    return [method for method in METHODS if method in ("head", "options") or hasattr(view, method)]


class TestOddInput:
    @pytest.mark.parametrize("route", VIEWS)
    def test_is_refused_in_one_form(self, route: str, things: Things, alices_client: Client) -> None:
        address = things.fill_in(route)
        methods = list_methods(VIEWS[route])

        for query in QUERIES[-17:] if route in NOT_OURS else QUERIES:
            check_answer(alices_client.get(f"{address}?{query}"), route, query)
        for headers in HEADERS:
            check_answer(alices_client.get(address, headers=headers), route, headers)
        for method in methods:
            if method in ("get", "head", "options"):
                check_answer(getattr(alices_client, method)(address), route, method)
                continue
            send = functools.partial(alices_client.generic, method.upper())
            for body in BODIES:
                check_answer(send(address, body, content_type="application/json"), route, method, body[:100])
            for content_type in CONTENT_TYPES:
                check_answer(send(address, b'{"name": "x"}', content_type=content_type), route, method, content_type)
            for body in FORMS:
                check_answer(
                    send(address, body, content_type="application/x-www-form-urlencoded"), route, method, body[:100]
                )
            for body in MULTIPARTS:
                check_answer(send(address, body, content_type="multipart/form-data; boundary=x"), route, method, body)

    @pytest.mark.parametrize("route", VIEWS)
    def test_of_strangers_is_refused_in_one_form(self, route: str, things: Things, client: Client) -> None:
        for method in METHODS:
            check_answer(getattr(client, method)(things.fill_in(route)), route, method)
        for body in (b"[" * 100_000, b"\xff", b"null"):
            check_answer(
                client.generic("POST", things.fill_in(route), body, content_type="application/json"), route, body[:9]
            )


class TestErrors:
    def test_are_json_where_there_is_no_view(self, client: Client) -> None:
        response = client.get("/api/nothing-here")

        assert (response.status_code, response.json()["code"]) == (404, "not_found")
        assert response.headers["Cache-Control"] == "no-store"
        assert client.get("/nothing-here").headers["Content-Type"].startswith("text/html")

    def test_are_json_when_nobody_expected_them(
        self, alices_client: Client, monkeypatch: pytest.MonkeyPatch, things: Things
    ) -> None:
        def fail(*args: object, **kwargs: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(services, "choose_quality", fail)
        alices_client.raise_request_exception = False
        response = alices_client.patch("/api/voice-default", b'{"quality": "fast"}', content_type="application/json")

        assert (response.status_code, response.json()["code"]) == (500, "server_error")
        assert response.headers["Cache-Control"] == "no-store"


@pytest.fixture
def full_database(transactional_db: None, alice: User) -> Iterator[None]:
    """SQLite finds no room for another page, and reports what it reports on a full disk."""
    with connection.cursor() as cursor:
        (before,) = cursor.execute("PRAGMA max_page_count").fetchone()
        (pages,) = cursor.execute("PRAGMA page_count").fetchone()
        cursor.execute(f"PRAGMA max_page_count = {pages}")
    # What is free within the pages there are.
    for size in (100_000, 1_000, 50):
        try:
            while True:
                Consent.objects.create(given_by=alice, attestation="own_voice", text="x" * size, text_sha256="x")
        except OperationalError:
            pass
    yield
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA max_page_count = {before}")


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "sqlite", reason="fills SQLite's file")
class TestFullDisk:
    def test_is_told_in_the_api(self, alices_client: Client, alice: User, full_database: None, media_root: Any) -> None:
        from tests.voices.api.requesting import upload

        response = upload(alices_client)

        assert (response.status_code, response.json()["code"]) == (507, "storage_full")
        assert not VoiceProfile.objects.filter(owner=alice).exists()
        assert list_files(media_root) == []

    def test_is_told_on_pages(
        self, alices_client: Client, full_database: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def write(*args: object, **kwargs: object) -> None:
            User.objects.bulk_create([User(username=f"{number:0150}") for number in range(1000)])

        monkeypatch.setattr("conversations.views.read_preference", write)
        alices_client.raise_request_exception = False
        response = alices_client.get("/", headers={"Accept-Language": "en"})

        assert response.status_code == 507
        assert "The disk is full" in response.content.decode()


def to_json_schema(schema: Any) -> Any:
    """OpenAPI 3.0 writes null as `nullable`, JSON Schema as a type."""
    if isinstance(schema, list):
        return [to_json_schema(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: to_json_schema(value) for name, value in schema.items() if name != "nullable"}
    return {"anyOf": [made, {"type": "null"}]} if schema.get("nullable") is True else made


class TestSchema:
    def test_says_what_is_answered(self, things: Things, alices_client: Client) -> None:
        whole = SchemaGenerator().get_schema(request=None, public=True)
        components = to_json_schema(whole["components"])
        checked = []
        for path, operations in whole["paths"].items():
            if "get" not in operations or not path.startswith("/api/") or path == "/api/schema":
                continue
            described = operations["get"]["responses"]["200"].get("content", {}).get("application/json")
            if described is None:
                continue
            response = alices_client.get(things.fill_in(path.replace("{", "<uuid:").replace("}", ">")))

            assert response.status_code == 200, path
            schema = to_json_schema(described["schema"]) | {"components": components}
            jsonschema.validate(response.json(), schema, format_checker=jsonschema.FormatChecker())
            checked.append(path)
        assert len(checked) >= 8
