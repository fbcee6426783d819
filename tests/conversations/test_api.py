import datetime as dt
import io
import json
import uuid
import zipfile
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core.files.storage import FileSystemStorage, default_storage
from django.test import AsyncClient, Client
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema

from conversations import archive
from conversations.api import urls as api_urls
from conversations.archive import make_folder_name, stream_archive
from conversations.encode import encode_audio
from conversations.models import Conversation, RetentionRun, Turn
from conversations.services import correct_turn
from tests import factories
from tests.fakes import SPEECH
from tests.files import list_files

FLAC = factories.make_flac()


def url(turn: Turn) -> str:
    return f"/api/conversations/{turn.conversation_id}/turns/{turn.pk}/audio"


@pytest.fixture
def alices_turn(alice: User) -> Turn:
    return factories.create_turn(factories.create_conversation(alice), audio=FLAC)


class TestTurnAudio:
    def test_is_played_to_its_owner(self, alices_client: Client, alices_turn: Turn) -> None:
        response = alices_client.get(url(alices_turn))

        assert response.status_code == 200
        assert response.content == FLAC
        assert response.headers["Content-Type"] == "audio/flac"
        assert response.headers["Cache-Control"].startswith("private")
        assert response.headers["Content-Disposition"] == f'inline; filename="{alices_turn.pk}.flac"'

    def test_is_ogg_when_it_was_kept_as_opus(self, alices_client: Client, alice: User) -> None:
        audio = encode_audio(SPEECH, 16_000, audio_format="opus", is_synthetic=False)
        turn = factories.create_turn(factories.create_conversation(alice), audio=audio)
        response = alices_client.get(url(turn) + "?download=1")

        assert (response.headers["Content-Type"], response.content) == ("audio/ogg", audio)
        assert response.headers["Content-Disposition"] == f'attachment; filename="{turn.pk}.ogg"'

    @pytest.mark.parametrize(
        ("query", "how"),
        [("download=true", "attachment"), ("download=YES", "attachment"), ("download=1", "attachment")]
        + [(query, "inline") for query in ("download=false", "download=0", "download=", "")],
    )
    def test_is_saved_only_when_that_is_asked(
        self, alices_client: Client, alices_turn: Turn, query: str, how: str
    ) -> None:
        response = alices_client.get(f"{url(alices_turn)}?{query}")

        assert response.headers["Content-Disposition"].startswith(how)

    def test_is_not_sent_again_when_the_browser_has_it(self, alices_client: Client, alices_turn: Turn) -> None:
        etag = alices_client.get(url(alices_turn)).headers["ETag"]

        assert alices_client.get(url(alices_turn), headers={"If-None-Match": etag}).status_code == 304
        part = {"Range": "bytes=0-9", "If-Range": etag}
        assert alices_client.get(url(alices_turn), headers=part).status_code == 206
        assert alices_client.get(url(alices_turn), headers=part | {"If-Range": '"old"'}).status_code == 200

    def test_is_played_whatever_the_browser_prefers(self, alices_client: Client, alices_turn: Turn) -> None:
        assert alices_client.get(url(alices_turn), headers={"Accept": "audio/webm"}).status_code == 200

    def test_does_not_exist_for_others(self, bobs_client: Client, client: Client, alices_turn: Turn) -> None:
        assert bobs_client.get(url(alices_turn)).status_code == 404
        assert client.get(url(alices_turn)).status_code == 404

    def test_is_not_found_through_another_conversation(
        self, alices_client: Client, alice: User, alices_turn: Turn
    ) -> None:
        alices_turn.conversation_id = factories.create_conversation(alice).pk

        assert alices_client.get(url(alices_turn)).status_code == 404

    def test_is_404_for_a_turn_without_audio(self, alices_client: Client, alice: User) -> None:
        silent = factories.create_turn(factories.create_conversation(alice))

        assert alices_client.get(url(silent)).status_code == 404

    def test_is_404_for_an_unknown_turn(self, alices_client: Client, alices_turn: Turn) -> None:
        alices_turn.pk = uuid.uuid4()

        assert alices_client.get(url(alices_turn)).status_code == 404

    def test_is_404_when_the_file_is_gone(self, alices_client: Client, alices_turn: Turn, media_root: Path) -> None:
        (media_root / alices_turn.audio.name).unlink()

        assert alices_client.get(url(alices_turn)).status_code == 404

    def test_is_only_read(self, alices_client: Client, alices_turn: Turn) -> None:
        assert alices_client.post(url(alices_turn)).status_code == 405

    @pytest.mark.parametrize(
        ("wanted", "start", "end"),
        [
            ("bytes=0-9", 0, 10),
            ("bytes=10-", 10, len(FLAC)),
            ("bytes=-5", len(FLAC) - 5, len(FLAC)),
            ("bytes=0-999999", 0, len(FLAC)),
            (f"bytes=-{len(FLAC) + 1}", 0, len(FLAC)),
        ],
    )
    def test_can_be_had_in_parts(
        self, alices_client: Client, alices_turn: Turn, wanted: str, start: int, end: int
    ) -> None:
        response = alices_client.get(url(alices_turn), headers={"Range": wanted})

        assert response.status_code == 206
        assert response.content == FLAC[start:end]
        assert response.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(FLAC)}"

    @pytest.mark.parametrize("wanted", [f"bytes={len(FLAC)}-", "bytes=9-3", "bytes=-0"])
    def test_refuses_a_part_that_is_not_there(self, alices_client: Client, alices_turn: Turn, wanted: str) -> None:
        response = alices_client.get(url(alices_turn), headers={"Range": wanted})

        assert response.status_code == 416
        assert response.headers["Content-Range"] == f"bytes */{len(FLAC)}"
        assert response.json()["code"] == "range_invalid"

    @pytest.mark.parametrize("wanted", ["bytes=-", "bytes=0-1,4-5", "lines=1-2", "bytes=a-b"])
    def test_is_sent_whole_when_the_part_is_not_understood(
        self, alices_client: Client, alices_turn: Turn, wanted: str
    ) -> None:
        response = alices_client.get(url(alices_turn), headers={"Range": wanted})

        assert (response.status_code, response.content) == (200, FLAC)


def say(owner: User, *texts: str, at: dt.datetime | None = None, **fields: Any) -> Conversation:
    """A conversation in which this was said, the user first."""
    conversation = factories.create_conversation(owner)
    for number, text in enumerate(texts or ("你好。",)):
        factories.create_turn(conversation, speaker=("user", "avatar")[number % 2], text=text, **fields)
    if at is not None:
        Conversation.objects.filter(pk=conversation.pk).update(created_at=at, last_turn_at=at)
    conversation.refresh_from_db()
    return conversation


def list_ids(client: Client, query: str = "") -> list[str]:
    response = client.get(f"/api/conversations?{query}")
    assert response.status_code == 200, response.content
    return [entry["id"] for entry in response.json()["results"]]


def refuse(response: Any, status: int, code: str, field: str | None = None) -> None:
    assert response.status_code == status, response.content
    problem = response.json()
    assert (problem["code"], problem.get("field")) == (code, field)
    assert problem["detail"]


class TestConversationList:
    def test_describes_each(self, alices_client: Client, alice: User) -> None:
        voice = factories.create_voice_profile(owner=alice, name="My voice")
        conversation = say(alice, "今天天氣如何", "晴天", audio=FLAC, audio_duration_ms=100, voice_profile_id=voice.pk)
        (entry,) = alices_client.get("/api/conversations").json()["results"]

        assert entry | {"created_at": 0, "last_turn_at": 0} == {
            "id": str(conversation.pk),
            "title": "今天天氣如何",
            "is_pinned": False,
            "created_at": 0,
            "last_turn_at": 0,
            "turn_count": 2,
            "audio_ms": 200,
            "audio_bytes": 2 * len(FLAC),
            "voices": [{"id": str(voice.pk), "name": "My voice", "is_deleted": False}],
            "match": None,
        }

    def test_says_that_a_voice_was_deleted_without_its_name(self, alices_client: Client, alice: User) -> None:
        voice = factories.create_voice_profile(owner=alice, name="My voice")
        say(alice, voice_profile_id=voice.pk)
        voice.delete()

        (entry,) = alices_client.get("/api/conversations").json()["results"]
        assert entry["voices"] == [{"id": None, "name": "—", "is_deleted": True}]

    def test_is_newest_first_and_stable_when_times_are_the_same(self, alices_client: Client, alice: User) -> None:
        moment = timezone.now()
        same = sorted(str(say(alice, at=moment).pk) for _ in range(7))
        older = str(say(alice, at=moment - dt.timedelta(days=1)).pk)

        assert list_ids(alices_client) == [*reversed(same), older]
        assert list_ids(alices_client, "ordering=time") == [older, *same]
        pages = [list_ids(alices_client, f"page_size=3&page={page}") for page in (1, 2, 3)]
        assert [each for page in pages for each in page] == [*reversed(same), older]

    def test_leaves_out_calls_without_words_and_other_peoples(
        self, alices_client: Client, alice: User, bob: User
    ) -> None:
        factories.create_conversation(alice)
        say(bob)

        assert list_ids(alices_client) == []

    @pytest.mark.parametrize(
        ("query", "count"), [("", 20), ("page_size=100", 23), ("page_size=9999", 23), ("page=2", 3)]
    )
    def test_comes_in_pages(self, alices_client: Client, alice: User, query: str, count: int) -> None:
        for _ in range(23):
            say(alice)

        assert len(list_ids(alices_client, query)) == count

    def test_says_where_the_other_pages_are(self, alices_client: Client, alice: User) -> None:
        for _ in range(3):
            say(alice)
        page = alices_client.get("/api/conversations?page_size=1&page=2").json()

        assert page["count"] == 3
        assert "page=3" in page["next"]
        assert page["previous"].endswith("/api/conversations?page_size=1")
        assert alices_client.get("/api/conversations?page_size=1&page=3").json()["next"] is None

    @pytest.mark.parametrize("page", ["0", "-1", "4", "x", "999999999999999999999"])
    def test_has_no_page_beyond_its_ends(self, alices_client: Client, alice: User, page: str) -> None:
        say(alice)

        refuse(alices_client.get(f"/api/conversations?page={page}"), 404, "not_found")

    def test_has_one_empty_page_when_there_is_nothing(self, alices_client: Client) -> None:
        page = alices_client.get("/api/conversations").json()

        assert page == {"count": 0, "next": None, "previous": None, "results": []}

    def test_finds_words_and_shows_where(self, alices_client: Client, alice: User) -> None:
        say(alice, "早安", "台北的天氣很好")
        say(alice, "別的事")
        (entry,) = alices_client.get("/api/conversations?q=天氣").json()["results"]

        match = entry["match"]
        assert match["turn_id"] == str(Turn.objects.get(text__contains="天氣").pk)
        assert match["speaker"] == "avatar"
        assert [piece["text"] for piece in match["pieces"] if piece["is_match"]] == ["天氣"]
        assert "".join(piece["text"] for piece in match["pieces"]) == "台北的天氣很好"

    def test_shows_the_title_when_only_that_was_found(self, alices_client: Client, alice: User) -> None:
        Conversation.objects.filter(pk=say(alice).pk).update(title="旅行計畫")
        (entry,) = alices_client.get("/api/conversations?q=旅行").json()["results"]

        assert entry["match"]["turn_id"] is None
        assert {"text": "旅行", "is_match": True} in entry["match"]["pieces"]

    def test_is_filtered_by_days_of_the_site(self, alices_client: Client, alice: User) -> None:
        # Half past midnight in Taipei is the day before in London.
        moment = dt.datetime(2026, 3, 10, 0, 30, tzinfo=ZoneInfo("Asia/Taipei"))
        conversation = str(say(alice, at=moment).pk)

        for query in ("from=2026-03-10", "to=2026-03-10", "from=2026-03-10&to=2026-03-10"):
            assert list_ids(alices_client, query) == [conversation], query
        for query in ("from=2026-03-11", "to=2026-03-09"):
            assert list_ids(alices_client, query) == [], query
        assert list_ids(alices_client, "to=9999-12-31") == [conversation]

    def test_is_filtered_by_voice_and_pin(self, alices_client: Client, alice: User) -> None:
        voice = factories.create_voice_profile(owner=alice)
        spoken, pinned = say(alice, voice_profile_id=voice.pk), say(alice)
        Conversation.objects.filter(pk=pinned.pk).update(is_pinned=True)

        assert list_ids(alices_client, f"voice={voice.pk}") == [str(spoken.pk)]
        assert list_ids(alices_client, "voice=deleted") == []
        voice.delete()
        assert list_ids(alices_client, "voice=deleted") == [str(spoken.pk)]
        assert list_ids(alices_client, "pinned=true") == [str(pinned.pk)]
        assert list_ids(alices_client, "pinned=false") == [str(spoken.pk)]

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("from=yesterday", "from"),
            ("to=2026-13-01", "to"),
            ("voice=mine", "voice"),
            ("pinned=perhaps", "pinned"),
            ("ordering=title", "ordering"),
            ("q=" + "天" * 201, "q"),
            ("q=%00", "q"),
        ],
    )
    def test_refuses_what_it_does_not_understand(self, alices_client: Client, query: str, field: str) -> None:
        refuse(alices_client.get(f"/api/conversations?{query}"), 400, "invalid", field)

    def test_is_for_people_who_are_logged_in(self, client: Client) -> None:
        refuse(client.get("/api/conversations"), 403, "not_logged_in")

    def test_asks_the_database_as_often_for_many_as_for_few(
        self, alices_client: Client, alice: User, django_assert_max_num_queries: Any
    ) -> None:
        for _ in range(10):
            say(alice, "天氣", "天氣")

        with django_assert_max_num_queries(8):
            alices_client.get("/api/conversations?q=天氣")


class TestStrangers:
    def test_get_404_everywhere(self, bobs_client: Client, alice: User) -> None:
        conversation = say(alice, audio=FLAC)
        turn = conversation.turns.get()
        address = f"/api/conversations/{conversation.pk}"
        json_body = {"content_type": "application/json"}

        for response in (
            bobs_client.get(address),
            bobs_client.patch(address, {"title": "mine"}, **json_body),
            bobs_client.delete(address),
            bobs_client.get(f"{address}/turns"),
            bobs_client.patch(f"{address}/turns/{turn.pk}", {"text": "x"}, **json_body),
            bobs_client.get(f"{address}/turns/{turn.pk}/audio"),
            bobs_client.post(f"{address}/export"),
            bobs_client.post("/api/conversations/export", {"ids": [str(conversation.pk)]}, **json_body),
            bobs_client.get(f"/c/{conversation.pk}/"),
        ):
            assert response.status_code == 404
        deleted = bobs_client.post("/api/conversations/delete", {"ids": [str(conversation.pk)]}, **json_body)
        assert deleted.json() == {"conversations": 0, "turns": 0, "audio_files": 0}
        turn.refresh_from_db()
        assert turn.text == "你好。"


class TestConversation:
    def test_is_named_and_pinned(self, alices_client: Client, alice: User) -> None:
        address = f"/api/conversations/{say(alice).pk}"
        for change in ({"title": "旅行"}, {"is_pinned": True}):
            response = alices_client.patch(address, change, content_type="application/json")
            assert response.status_code == 200

        entry = alices_client.get(address).json()
        assert (entry["title"], entry["is_pinned"], entry["turn_count"]) == ("旅行", True, 1)

    def test_is_named_and_corrected_without_what_reorders_or_hides_text(
        self, alices_client: Client, alice: User
    ) -> None:
        turn = factories.create_turn(factories.create_conversation(alice), text="one\u202e\x07 two")
        conversation, address = turn.conversation, f"/api/conversations/{turn.conversation_id}"
        conversation.refresh_from_db()
        assert (turn.text, conversation.title) == ("one two", "one two")

        def change(url: str, body: Any) -> Any:
            return alices_client.patch(url, body, content_type="application/json").json()

        assert change(address, {"title": "\u202egnp.\x1bexe\n"})["title"] == "gnp.exe"
        assert change(f"{address}/turns/{turn.pk}", {"text": "th\u200bree\u2069"})["text"] == "three"
        assert change(f"{address}/turns/{turn.pk}", {"text": "\u202e"})["code"] == "invalid"

    @pytest.mark.parametrize("title", ["", "   "])
    def test_is_named_by_its_first_words_again_when_the_title_is_emptied(
        self, alices_client: Client, alice: User, title: str
    ) -> None:
        conversation = say(alice, "早安", "晴天", "天氣")
        Conversation.objects.filter(pk=conversation.pk).update(title="旅行")

        for _ in range(2):
            response = alices_client.patch(
                f"/api/conversations/{conversation.pk}", {"title": title}, content_type="application/json"
            )
            assert (response.status_code, response.json()["title"]) == (200, "早安")

    @pytest.mark.parametrize("title", ["長" * 81, None, {"a": 1}])
    def test_refuses_a_title_that_is_none(self, alices_client: Client, alice: User, title: Any) -> None:
        address = f"/api/conversations/{say(alice).pk}"
        response = alices_client.patch(address, {"title": title}, content_type="application/json")

        refuse(response, 400, "invalid", "title")

    def test_is_deleted_with_its_files(self, alices_client: Client, alice: User, media_root: Path) -> None:
        kept = say(alice, audio=FLAC)
        address = f"/api/conversations/{say(alice, '一', '二', audio=FLAC).pk}"

        assert alices_client.delete(address).status_code == 204
        assert list(Conversation.objects.all()) == [kept]
        assert len(list_files(media_root)) == 1
        refuse(alices_client.delete(address), 404, "not_found")

    def test_needs_a_csrf_token_to_change(self, alice: User) -> None:
        client = Client(enforce_csrf_checks=True)
        client.force_login(alice)

        refuse(client.delete(f"/api/conversations/{say(alice).pk}"), 403, "forbidden")


class TestTurns:
    def test_come_in_order_with_all_there_is_to_say(self, alices_client: Client, alice: User) -> None:
        conversation = say(alice, "天氣", "晴天", audio=FLAC, latency={"stt": 1, "ttft": 2, "ttfa": 3, "total": 4})
        page = alices_client.get(f"/api/conversations/{conversation.pk}/turns").json()
        user, avatar = page["results"]

        assert page["count"] == 2
        assert (user["sequence"], user["speaker"], user["text"], user["voice"]) == (1, "user", "天氣", None)
        assert avatar["latency_ms"] == {"stt": 1, "ttft": 2, "ttfa": 3, "total": 4}
        assert avatar["audio"]["type"] == "audio/flac"
        assert alices_client.get(avatar["audio"]["url"]).content == FLAC

    def test_come_in_pages(self, alices_client: Client, alice: User) -> None:
        address = f"/api/conversations/{say(alice, *'一二三四五').pk}/turns"
        pages = [alices_client.get(f"{address}?page_size=2&page={page}").json()["results"] for page in (1, 2, 3)]

        assert ["".join(turn["text"] for turn in page) for page in pages] == ["一二", "三四", "五"]
        refuse(alices_client.get(f"{address}?page_size=2&page=4"), 404, "not_found")


class TestCorrecting:
    def correct(self, client: Client, turn: Turn, text: Any) -> Any:
        address = f"/api/conversations/{turn.conversation_id}/turns/{turn.pk}"
        return client.patch(address, {"text": text}, content_type="application/json")

    def test_keeps_what_was_heard(self, alices_client: Client, alice: User) -> None:
        conversation = say(alice, "金天天氣", "我不懂")
        turn = conversation.turns.in_order()[0]

        for text in ("今天", "今天天氣"):
            answer = self.correct(alices_client, turn, text).json()
        assert (answer["text"], answer["heard_text"]) == ("今天天氣", "金天天氣")
        assert answer["corrected_at"]
        assert not conversation.turns.filter(is_superseded=True).exists()
        assert alices_client.get(f"/api/conversations/{conversation.pk}").json()["title"] == "今天天氣"
        assert list_ids(alices_client, "q=今天天氣") == [str(conversation.pk)]

    def test_is_taken_back(self, alices_client: Client, alice: User) -> None:
        turn = say(alice, "金天").turns.get()
        self.correct(alices_client, turn, "今天")
        answer = self.correct(alices_client, turn, "金天").json()

        assert (answer["text"], answer["heard_text"], answer["corrected_at"]) == ("金天", "", None)

    def test_is_only_for_what_the_user_said_and_still_counts(self, alices_client: Client, alice: User) -> None:
        conversation = say(alice, "一", "二", "三")
        first, avatar, last = conversation.turns.in_order()
        correct_turn(conversation_id=conversation.pk, turn_id=first.pk, text="壹", supersede=True)

        for turn in (avatar, last):
            refuse(self.correct(alices_client, turn, "x"), 409, "not_correctable")

    @pytest.mark.parametrize("text", ["", "  ", "長" * 4001, None])
    def test_refuses_what_is_no_text(self, alices_client: Client, alice: User, text: Any) -> None:
        refuse(self.correct(alices_client, say(alice).turns.get(), text), 400, "invalid", "text")


class TestDeleting:
    def delete(self, client: Client, body: Any) -> Any:
        return client.post("/api/conversations/delete", body, content_type="application/json")

    def test_takes_those_that_are_named(self, alices_client: Client, alice: User, bob: User, media_root: Path) -> None:
        doomed, kept, bobs = say(alice, "一", "二", audio=FLAC), say(alice), say(bob, audio=FLAC)
        ids = [str(doomed.pk), str(bobs.pk), str(uuid.uuid4())]

        assert self.delete(alices_client, {"ids": ids}).json() == {"conversations": 1, "turns": 2, "audio_files": 2}
        assert set(Conversation.objects.all()) == {kept, bobs}
        assert len(list_files(media_root)) == 1

    def test_takes_all_of_the_users(self, alices_client: Client, alice: User, bob: User, media_root: Path) -> None:
        bobs = say(bob)
        factories.create_conversation(alice)
        for _ in range(3):
            say(alice, audio=FLAC)

        assert self.delete(alices_client, {"all": True}).json()["audio_files"] == 3
        assert list(Conversation.objects.all()) == [bobs]
        assert list_files(media_root) == []

    @pytest.mark.parametrize(
        "body", [{}, {"ids": []}, {"all": False}, {"all": True, "ids": [str(uuid.uuid4())]}, {"ids": "x"}]
    )
    def test_refuses_to_guess(self, alices_client: Client, alice: User, body: Any) -> None:
        say(alice)

        refuse(self.delete(alices_client, body), 400, "invalid", "ids")
        assert Conversation.objects.count() == 1


class StubbornStorage:
    """Puts itself before the storage: after so many files it lets no more be removed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
        self.asked: list[str] = []
        delete = FileSystemStorage.delete

        def fail(storage: FileSystemStorage, name: str) -> None:
            if not name.endswith(".flac"):
                delete(storage, name)
                return
            self.asked.append(name)
            if len(self.asked) > after:
                raise OSError("away")
            delete(storage, name)

        monkeypatch.setattr(FileSystemStorage, "delete", fail)


class TestDeletingWithoutTheStorage:
    def test_says_so_and_can_be_done_again(
        self, alices_client: Client, alice: User, monkeypatch: pytest.MonkeyPatch, media_root: Path
    ) -> None:
        conversation = say(alice, *"一二三", audio=FLAC)
        address = f"/api/conversations/{conversation.pk}"

        with monkeypatch.context() as patch:
            storage = StubbornStorage(patch, after=1)
            refuse(alices_client.delete(address), 503, "storage_unavailable")
        # Not asked once for each file: each may take its time to fail.
        assert len(storage.asked) == 2
        assert conversation.turns.count() == 3
        # What is gone is not offered to be heard.
        assert conversation.turns.exclude(audio="").count() == 2
        assert alices_client.delete(address).status_code == 204
        assert list_files(media_root) == []

    def test_keeps_what_it_could_not_delete(
        self, alices_client: Client, alice: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        conversations = sorted((say(alice, "一", "二", audio=FLAC) for _ in range(4)), key=lambda each: each.pk)

        storage = StubbornStorage(monkeypatch, after=2)
        response = alices_client.post("/api/conversations/delete", {"all": True}, content_type="application/json")

        refuse(response, 503, "storage_unavailable")
        assert len(storage.asked) == 3
        assert set(Conversation.objects.all()) == set(conversations[1:])


@pytest.mark.django_db(transaction=True)
class TestExport:
    async def export(self, user: User, address: str, body: Any = None) -> tuple[Any, zipfile.ZipFile]:
        client = AsyncClient()
        await client.aforce_login(user)
        response = await client.post(address, body or {}, content_type="application/json")
        assert response.status_code == 200, response.content
        pieces = [piece async for piece in response.streaming_content]
        assert len(pieces) > 0
        return response, zipfile.ZipFile(io.BytesIO(b"".join(pieces)))

    async def test_is_complete(self, alice: User) -> None:
        def prepare() -> Conversation:
            conversation = say(alice, "金天", "晴*天*", audio=FLAC)
            first = conversation.turns.in_order()[0]
            correct_turn(conversation_id=conversation.pk, turn_id=first.pk, text="今天", supersede=True)
            factories.create_turn(conversation, speaker="avatar", text="好", audio=FLAC)
            return conversation

        conversation = await sync_to_async(prepare)()
        response, taken = await self.export(alice, f"/api/conversations/{conversation.pk}/export")
        folder = await sync_to_async(lambda: make_folder_name(Conversation.objects.get()))()

        assert response.headers["Content-Type"] == "application/zip"
        assert response.headers["Content-Disposition"].startswith("attachment")
        assert taken.testzip() is None
        assert taken.namelist() == [
            f"{folder}/{name}"
            for name in (
                "conversation.md",
                "conversation.json",
                "audio/0001-user.flac",
                "audio/0002-avatar.flac",
                "audio/0003-avatar.flac",
            )
        ]
        kept = json.loads(taken.read(f"{folder}/conversation.json"))
        assert [(turn["text"], turn["heard_text"], turn["is_superseded"]) for turn in kept["turns"]] == [
            ("今天", "金天", False),
            ("晴*天*", "", True),
            ("好", "", False),
        ]
        assert taken.read(f"{folder}/{kept['turns'][0]['audio']}") == FLAC
        text = taken.read(f"{folder}/conversation.md").decode()
        assert "> 今天" in text
        assert "heard as: 金天" in text
        assert r"晴\*天\*" in text

    async def test_says_about_how_large_it_becomes(self, alice: User) -> None:
        conversation = await sync_to_async(say)(alice, *"一二三四五六七八九十" * 3, audio=b"OggS" + bytes(12_000))
        response, taken = await self.export(alice, f"/api/conversations/{conversation.pk}/export")

        size = sum(entry.file_size for entry in taken.infolist())
        assert size * 0.9 < int(response.headers["X-Expected-Bytes"]) < size * 1.25

    async def test_takes_all_or_those_that_are_named(self, alice: User, bob: User) -> None:
        first, _, _ = [await sync_to_async(say)(owner) for owner in (alice, alice, bob)]

        _, everything = await self.export(alice, "/api/conversations/export")
        _, named = await self.export(alice, "/api/conversations/export", {"ids": [str(first.pk)]})

        assert (len(everything.namelist()), len(named.namelist())) == (4, 2)

    async def test_is_had_with_a_plain_form_as_well(self, alice: User) -> None:
        conversation = await sync_to_async(say)(alice)
        client = AsyncClient()
        await client.aforce_login(alice)
        response = await client.post(
            "/api/conversations/export",
            f"ids={conversation.pk}&csrfmiddlewaretoken=x",
            content_type="application/x-www-form-urlencoded",
            headers={"accept": "text/html"},
        )

        assert response.status_code == 200
        assert b"".join([piece async for piece in response.streaming_content])[:2] == b"PK"

    @pytest.mark.parametrize(
        "title", ["../../etc/passwd", "a/b\\c:d*e?f", "CON", "." * 80, "\u202egnp.exe", "長" * 80, "\n", "🎉", ""]
    )
    async def test_has_names_that_harm_nobody(self, alice: User, title: str) -> None:
        def prepare() -> None:
            Conversation.objects.filter(pk=say(alice, audio=FLAC).pk).update(title=title)

        await sync_to_async(prepare)()
        _, taken = await self.export(alice, "/api/conversations/export")

        for name in taken.namelist():
            assert not set(name) & set('\\:*?"<>|\n\u202e')
            assert name.count("/") <= 2
            assert ".." not in name
            assert len(name.encode()) < 250
        assert len({name.split("/")[0] for name in taken.namelist()}) == 1

    async def test_has_text_that_is_read_as_it_is_written(self, alice: User) -> None:
        def prepare() -> None:
            conversation = say(alice, "a\u202eb\x1bc\u2028d")
            fields = {"heard_text": "x\u2066y", "corrected_at": conversation.created_at, "voice_name": "v\u200fw"}
            conversation.turns.update(text="a\u202eb\x1bc", **fields)
            Conversation.objects.filter(pk=conversation.pk).update(title="t\u202eu")

        await sync_to_async(prepare)()
        _, taken = await self.export(alice, "/api/conversations/export")

        (name,) = [name for name in taken.namelist() if name.endswith(".md")]
        written = taken.read(name).decode()
        assert not set(written) & set("\u202e\u2066\u200f\x1b")
        for text in ("# tu", "> abc", "heard as: xy", "vw"):
            assert text in written

    async def test_leaves_out_audio_that_is_gone(self, alice: User) -> None:
        conversation = await sync_to_async(say)(alice, audio=FLAC)
        turn = await conversation.turns.aget()
        await sync_to_async(default_storage.delete)(turn.audio_name)
        _, taken = await self.export(alice, "/api/conversations/export")

        assert len(taken.namelist()) == 2

    async def test_holds_nothing_whole(self, alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archive, "PIECE_BYTES", 1000)
        conversation = await sync_to_async(say)(alice, *"一二三四五", audio=bytes(5000))
        sizes = [len(piece) async for piece in stream_archive([conversation.pk])]

        assert len(sizes) > 20
        assert max(sizes) < 3000

    async def test_ends_with_a_client_that_leaves(self, alice: User) -> None:
        conversation = await sync_to_async(say)(alice, audio=bytes(3 * archive.PIECE_BYTES))
        pieces = stream_archive([conversation.pk])
        await anext(pieces)
        await pieces.aclose()

    async def test_is_404_when_there_is_nothing(self, alice: User) -> None:
        client = AsyncClient()
        await client.aforce_login(alice)

        refuse(await client.post("/api/conversations/export", {}, content_type="application/json"), 404, "not_found")


class TestRetention:
    def choose(self, client: Client, **days: Any) -> Any:
        return client.put("/api/retention", days, content_type="application/json")

    def test_is_the_sites_until_somebody_chooses(self, alices_client: Client, settings: Any) -> None:
        settings.AVATAR_RETENTION_AUDIO_DAYS = 30

        assert alices_client.get("/api/retention").json() == {
            "audio_days": None,
            "text_days": None,
            "site": {"audio_days": 30, "text_days": None},
            "effective": {"audio_days": 30, "text_days": None},
            "last_run_at": None,
        }

    def test_is_chosen_and_taken_back(self, alices_client: Client, bobs_client: Client) -> None:
        RetentionRun.objects.create(started_at=timezone.now(), finished_at=timezone.now())
        chosen = self.choose(alices_client, audio_days=7, text_days=30).json()

        assert chosen["effective"] == {"audio_days": 7, "text_days": 30}
        assert chosen["last_run_at"]
        assert bobs_client.get("/api/retention").json()["audio_days"] is None
        assert self.choose(alices_client, audio_days=None, text_days=None).json()["text_days"] is None

    def test_is_never_longer_than_the_sites(self, alices_client: Client, settings: Any) -> None:
        settings.AVATAR_RETENTION_TEXT_DAYS = 30

        refuse(self.choose(alices_client, audio_days=99, text_days=31), 400, "longer_than_site", "text_days")
        assert self.choose(alices_client, audio_days=99, text_days=30).status_code == 200

    @pytest.mark.parametrize("days", [0, -1, 3651, "soon"])
    def test_is_a_number_of_days(self, alices_client: Client, days: Any) -> None:
        refuse(self.choose(alices_client, audio_days=days, text_days=None), 400, "invalid", "audio_days")

    def test_is_chosen_whole(self, alices_client: Client) -> None:
        refuse(self.choose(alices_client, audio_days=5), 400, "invalid", "text_days")


class TestSchema:
    @pytest.fixture
    def schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
        return schema

    @pytest.fixture
    def operations(self, schema: dict[str, Any]) -> dict[tuple[str, str], Any]:
        return {
            (path, method): operation
            for path, operations in schema["paths"].items()
            if path.startswith(("/api/conversations", "/api/retention"))
            for method, operation in operations.items()
        }

    def test_is_valid_and_has_every_endpoint(
        self, schema: dict[str, Any], operations: dict[tuple[str, str], Any]
    ) -> None:
        validate_schema(schema)
        paths = {
            "/api/" + pattern.pattern._route.replace("<uuid:", "{").replace(">", "}")  # type: ignore[union-attr]
            for pattern in api_urls.urlpatterns
        }

        assert {path for path, _ in operations} == paths

    def test_has_words_errors_and_examples_for_every_operation(self, operations: dict[tuple[str, str], Any]) -> None:
        for operation_of, operation in operations.items():
            assert operation["summary"], operation_of
            assert operation["description"], operation_of
            bodies = dict(operation["responses"])
            assert {status for status in bodies if status.startswith(("4", "5"))}, operation_of
            if "requestBody" in operation:
                bodies["request"] = operation["requestBody"]
            for status, body in bodies.items():
                for media_type, content in body.get("content", {}).items():
                    if media_type == "application/json":
                        assert content["examples"], (operation_of, status)

    def test_says_what_the_storage_and_ranges_do(self, operations: dict[tuple[str, str], Any]) -> None:
        address = "/api/conversations/{conversation_id}"
        for operation_of in ((address, "delete"), ("/api/conversations/delete", "post")):
            (example,) = operations[operation_of]["responses"]["503"]["content"]["application/json"][
                "examples"
            ].values()
            assert example["value"]["code"] == "storage_unavailable"
        audio = operations[f"{address}/turns/{{turn_id}}/audio", "get"]["responses"]

        assert set(audio) == {"200", "206", "304", "404", "416", "503"}
        assert set(audio["206"]["content"]) == {"audio/ogg", "audio/flac"}
