from pathlib import Path

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client

from conversations.admin import ConversationAdmin
from conversations.models import Conversation, RetentionRun, Turn
from tests import factories
from tests.files import list_files

SECRET = "我有一個祕密"


@pytest.fixture
def alices_turn(alice: User) -> Turn:
    return factories.create_turn(factories.create_conversation(alice), text=SECRET, audio=factories.make_flac())


@pytest.fixture
def operator(db: None) -> User:
    """May see and delete conversations, but not open what was said."""
    user = factories.create_user("operator", is_staff=True)
    names = ["view_conversation", "delete_conversation", "view_turn", "delete_turn", "delete_turnsearch"]
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    return user


@pytest.fixture
def operators_client(operator: User) -> Client:
    client = Client()
    client.force_login(operator)
    return client


def url(turn: Turn, action: str = "change") -> str:
    return f"/admin/conversations/conversation/{turn.conversation_id}/{action}/"


class TestConversationAdmin:
    def test_shows_figures_and_nothing_that_was_said(self, admin_client: Client, alices_turn: Turn) -> None:
        for address in ("/admin/", "/admin/conversations/conversation/", url(alices_turn), url(alices_turn, "delete")):
            response = admin_client.get(address)

            assert response.status_code == 200, address
            assert SECRET not in response.content.decode(), address
        assert not LogEntry.objects.exists()

    def test_finds_nothing_by_what_was_said(self, admin_client: Client, alices_turn: Turn) -> None:
        found = admin_client.get("/admin/conversations/conversation/?q=祕密").content.decode()

        assert str(alices_turn.conversation_id) not in found

    @pytest.mark.parametrize(
        "query", ["title__startswith=我", "title=x", "turns__text__contains=我", "is_pinned__regex=1", "id__gt=0"]
    )
    def test_takes_no_lookup_but_its_filters(self, operators_client: Client, alices_turn: Turn, query: str) -> None:
        listed = "/admin/conversations/conversation/"

        assert operators_client.get(f"{listed}?{query}").status_code == 400
        assert str(alices_turn.conversation_id) in operators_client.get(f"{listed}?is_pinned__exact=0").content.decode()

    def test_opens_what_was_said_and_logs_it(self, admin_client: Client, admin_user: User, alices_turn: Turn) -> None:
        response = admin_client.get(url(alices_turn) + "?content=1")

        assert SECRET in response.content.decode()
        entry = LogEntry.objects.get()
        assert (entry.user, entry.object_id) == (admin_user, str(alices_turn.conversation_id))
        assert "祕密" not in entry.object_repr + entry.change_message

    def test_refuses_it_without_the_permission(self, operators_client: Client, alices_turn: Turn) -> None:
        assert "content=1" not in operators_client.get(url(alices_turn)).content.decode()
        assert operators_client.get(url(alices_turn) + "?content=1").status_code == 403
        assert not LogEntry.objects.exists()

    @pytest.mark.parametrize("object_id", ["garbage", "00000000-0000-4000-8000-000000000000", "_5F"])
    def test_knows_no_conversation_of_another_address(self, admin_client: Client, object_id: str) -> None:
        response = admin_client.get(f"/admin/conversations/conversation/{object_id}/change/?content=1")

        assert (response.status_code, response.headers["Location"]) == (302, "/admin/")
        assert not LogEntry.objects.exists()

    def test_changes_nothing(self, admin_client: Client, alices_turn: Turn) -> None:
        assert admin_client.post(url(alices_turn), {"title": "changed"}).status_code == 403

    @pytest.mark.django_db(transaction=True)
    def test_deletes_files_as_well(self, admin_client: Client, alices_turn: Turn, media_root: Path) -> None:
        admin_client.post(url(alices_turn, "delete"), {"post": "yes"})

        assert not Conversation.objects.exists()
        assert list_files(media_root) == []

    @pytest.mark.django_db(transaction=True)
    def test_keeps_files_when_deleting_is_taken_back(
        self, admin_client: Client, alices_turn: Turn, media_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: object, **kwargs: object) -> None:
            raise RuntimeError("the log of the admin cannot be written")

        monkeypatch.setattr(ConversationAdmin, "response_delete", fail)
        with pytest.raises(RuntimeError):
            admin_client.post(url(alices_turn, "delete"), {"post": "yes"})

        assert Turn.objects.filter(pk=alices_turn.pk).exists()
        assert [path.name for path in list_files(media_root)] == [f"{alices_turn.pk}.flac"]

    @pytest.mark.django_db(transaction=True)
    def test_deletes_several_with_their_files(
        self, admin_client: Client, alices_turn: Turn, alice: User, media_root: Path
    ) -> None:
        other = factories.create_turn(factories.create_conversation(alice), audio=factories.make_flac())
        chosen = [str(turn.conversation_id) for turn in (alices_turn, other)]

        admin_client.post(
            "/admin/conversations/conversation/",
            {"action": "delete_selected", "_selected_action": chosen, "post": "yes"},
        )

        assert not Conversation.objects.exists()
        assert list_files(media_root) == []

    def test_is_not_for_users(self, alices_client: Client) -> None:
        assert alices_client.get("/admin/conversations/conversation/").status_code == 302


class TestRetentionRunAdmin:
    def test_shows_runs_and_changes_none(self, admin_client: Client, alice: User) -> None:
        run = RetentionRun.objects.create(started_at=alice.date_joined, turns=12345)
        listed = admin_client.get("/admin/conversations/retentionrun/")

        assert "12345" in listed.content.decode()
        for action in ("change", "delete"):
            assert admin_client.post(f"/admin/conversations/retentionrun/{run.pk}/{action}/").status_code == 403


class TestVoiceAdmin:
    def test_is_shown(self, admin_client: Client) -> None:
        assert admin_client.get("/admin/voices/voiceprofile/").status_code == 200
