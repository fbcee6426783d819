from __future__ import annotations

import re
import uuid

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from avatar_site.lib import audit
from avatar_site.lib.audit import Access
from avatar_site.operations.models import BackupRun
from realtime.models import LiveCall
from tests import factories

LIST = "/admin/admin/logentry/"


@pytest.fixture
def operator(db: None) -> User:
    return User.objects.create_superuser("operator", password=factories.PASSWORD)


@pytest.fixture
def client(operator: User) -> Client:
    client = Client(headers={"accept-language": "en"})
    client.force_login(operator)
    return client


def read_rows(client: Client, **wanted: str) -> list[str]:
    """The text of each row of the list."""
    answer = client.get(LIST, wanted)
    assert answer.status_code == 200, answer
    found = re.findall(r"<tr[^>]*x-data[^>]*>.*?</tr>|<tbody.*?</tbody>", answer.content.decode(), re.DOTALL)
    table = re.search(r'id="result_list".*?</table>', answer.content.decode(), re.DOTALL)
    if table is None:
        return []
    rows = re.findall(r"<tbody.*?</tbody>", table[0], re.DOTALL) or found
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in rows]


class TestList:
    def test_has_every_way_to_content(self, client: Client) -> None:
        owner = factories.create_user("alice")
        conversation = factories.create_conversation(owner)
        profile = factories.upload_voice(owner)
        (recording,) = profile.recordings.all()

        client.get(f"/admin/conversations/conversation/{conversation.pk}/change/?content=1")
        client.get(f"/admin/voices/voiceprofile/{profile.pk}/change/?transcripts=1")
        client.get(reverse("admin:voices_recording_listen", args=[recording.pk]))

        rows = read_rows(client, kind="access")
        assert len(rows) == 3
        assert "Listened to a recording" in rows[0]
        assert "Read what was said in the recordings of a voice" in rows[1]
        assert "Opened what was said in a conversation" in rows[2]
        assert str(conversation.pk) in rows[2]
        assert all("operator" in row and "content opened" in row for row in rows)

    @pytest.mark.parametrize(
        "path",
        [
            "/c/{conversation}/",
            "/history/{conversation}/",
            "/api/conversations/{conversation}",
            "/api/conversations/{conversation}/turns",
            "/api/conversations/{conversation}/turns/{turn}/audio",
            "/api/conversations/{conversation}/export",
            "/voices/{profile}/",
            "/api/voice-profiles/{profile}/recordings/{recording}/audio",
            "/api/voice-profiles/{profile}/export",
        ],
    )
    def test_needs_no_entry_of_pages_that_show_operators_their_own_alone(self, client: Client, path: str) -> None:
        owner = factories.create_user("alice")
        conversation = factories.create_conversation(owner)
        turn = factories.create_turn(conversation, text="祕密", audio=factories.make_flac(), audio_duration_ms=100)
        profile = factories.upload_voice(owner)
        recording = profile.recordings.get()
        names = {"conversation": conversation, "turn": turn, "profile": profile, "recording": recording}
        address = path.format(**{name: row.pk for name, row in names.items()})

        ask = client.post if address.startswith("/api/conversations") and address.endswith("/export") else client.get

        answer = ask(address)

        assert answer.status_code == 404
        client.force_login(owner)
        assert ask(address).status_code == 200

    def test_tells_opened_content_from_changes(self, client: Client, operator: User) -> None:
        client.post(
            "/admin/auth/group/add/",
            {"name": "callers", "permissions": [], "_save": "1"},
        )
        LogEntry.objects.create(
            user=operator, action_flag=2, object_repr="x", change_message=f"{Access.BACKUP} 20261126T193000Z-ab12."
        )

        assert len(read_rows(client)) == 2
        (added,) = read_rows(client, kind="added")
        assert "callers" in added
        (opened,) = read_rows(client, kind="access")
        assert "Downloaded the database of a backup" in opened
        assert read_rows(client, kind="changed") == []

    @pytest.mark.parametrize("wanted", [{"operator": "x"}, {"about": "'"}, {"kind": "?"}, {"operator": "99999999"}])
    def test_survives_a_made_up_filter(self, client: Client, wanted: dict[str, str]) -> None:
        assert client.get(LIST, wanted).status_code == 200

    def test_filters_by_operator_subject_and_month(self, client: Client, operator: User) -> None:
        other = User.objects.create_superuser("other", password=factories.PASSWORD)
        conversation = factories.create_conversation()
        request = type("Request", (), {"user": other})()
        audit.log_access(request, Access.CONVERSATION, of=conversation, model=type(conversation))
        request.user = operator
        audit.log_access(request, Access.BACKUP, of=None, model=BackupRun, detail="x")

        (row,) = read_rows(client, operator=str(other.pk))
        assert "Opened what was said" in row
        about = str(LogEntry.objects.get(user=other).content_type_id)
        assert read_rows(client, about=about) == [row]
        year = str(LogEntry.objects.get(user=other).action_time.year)
        assert len(read_rows(client, action_time__year=year)) == 2
        assert read_rows(client, q=str(conversation.pk)) == [row]

    def test_refuses_lookups_of_what_it_does_not_filter_by(self, client: Client) -> None:
        answer = client.get(LIST, {"user__password__startswith": "p"})

        assert answer.status_code in (302, 400)

    def test_can_neither_be_changed_nor_emptied(self, client: Client, operator: User) -> None:
        entry = LogEntry.objects.create(user=operator, action_flag=2, object_repr="x", change_message="rebuild")

        assert client.get(f"{LIST}add/").status_code == 403
        assert client.post(f"{LIST}{entry.pk}/delete/", {"post": "yes"}).status_code == 403
        assert client.post(f"{LIST}{entry.pk}/change/", {"change_message": "nothing"}).status_code == 403
        chosen = {"action": "delete_selected", "_selected_action": str(entry.pk), "post": "yes"}
        client.post(LIST, chosen)
        assert LogEntry.objects.filter(pk=entry.pk, change_message="rebuild").exists()

    def test_outlives_the_accounts_of_operators(self, client: Client) -> None:
        other = User.objects.create_superuser("other", password=factories.PASSWORD)
        entry = LogEntry.objects.create(user=other, action_flag=2, object_repr="x", change_message="rebuild")

        client.post(f"/admin/auth/user/{other.pk}/delete/", {"post": "yes"})

        assert LogEntry.objects.filter(pk=entry.pk).exists()

    def test_keeps_no_account_that_is_not_in_it(self, client: Client) -> None:
        person = factories.create_user("person")
        LiveCall.objects.create(
            session_id=uuid.uuid4(), user=person, process="a:1", began_at=timezone.now(), last_seen_at=timezone.now()
        )

        client.post(f"/admin/auth/user/{person.pk}/delete/", {"post": "yes"})

        assert not User.objects.filter(pk=person.pk).exists()

    def test_is_for_those_with_the_permission(self, db: None) -> None:
        staff = factories.create_user("staff", is_staff=True)
        client = Client()
        client.force_login(staff)
        assert client.get(LIST).status_code == 403

        staff.user_permissions.add(Permission.objects.get(codename="view_logentry"))

        assert client.get(LIST).status_code == 200

    def test_speaks_chinese(self, client: Client, operator: User) -> None:
        request = type("Request", (), {"user": operator})()
        audit.log_access(request, Access.BACKUP, of=None, model=BackupRun, detail="x")
        client.defaults["HTTP_ACCEPT_LANGUAGE"] = "zh-hant"

        page = client.get(LIST, headers={"accept-language": "zh-hant"}).content.decode()

        assert "下載了備份裡的資料庫" in page
        assert "稽核" in page


class TestAccess:
    @pytest.mark.parametrize("access", Access)
    def test_is_found_again_in_its_message(self, access: Access) -> None:
        assert audit.find_access(f"{access} something") == access
        assert audit.LABELS[access]

    def test_is_not_found_in_other_messages(self) -> None:
        assert audit.find_access("Asked for a backup.") is None

    def test_begins_no_other_access(self) -> None:
        for access in Access:
            assert [other for other in Access if other.value.startswith(access.value)] == [access]
