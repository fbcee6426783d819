import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from realtime.models import STALE_AFTER, CallState, LiveCall
from tests import factories

pytestmark = pytest.mark.django_db

PAGE = reverse("admin:realtime_livecall_changelist")


def make_operator(*permissions: str) -> tuple[User, Client]:
    operator = factories.create_user("olga", is_staff=True)
    operator.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(operator)
    return operator, client


def act(client: Client, action: str, *calls: LiveCall) -> str:
    form = {"action": action, "_selected_action": [str(call.pk) for call in calls]}
    return client.post(PAGE, form, follow=True, headers={"Accept-Language": "en"}).content.decode()


class TestWhoIsConnected:
    def test_shows_who_talks_and_not_who_was_cut_off_with_a_process(self, alice: User, bob: User) -> None:
        factories.create_live_call(alice)
        factories.create_live_call(bob, last_seen_at=timezone.now() - STALE_AFTER)
        _, client = make_operator("view_livecall")

        page = client.get(PAGE, headers={"Accept-Language": "zh-hant"}).content.decode()

        assert "alice" in page
        assert "bob" not in page
        for word in ("目前連線", "通話中", "不保存", "處理程序"):
            assert word in page

    def test_is_for_operators_alone(self, alices_client: Client) -> None:
        assert alices_client.get(PAGE).status_code == 302

    def test_ends_a_call_and_says_who_did_it(self, alice: User, bob: User) -> None:
        alices, bobs = factories.create_live_call(alice), factories.create_live_call(bob)
        operator, client = make_operator("view_livecall", "end_call")

        page = act(client, "end_calls", alices)

        assert "1 call is ended." in page
        assert LiveCall.objects.get(pk=alices.pk).state == CallState.ENDING
        assert LiveCall.objects.get(pk=bobs.pk).state == CallState.ACTIVE
        (entry,) = LogEntry.objects.all()
        assert (entry.user_id, entry.object_repr, entry.change_message) == (operator.pk, "alice", "Ended a call.")

    def test_shows_who_waits_and_ends_that_too(self, alice: User, bob: User) -> None:
        waiting = factories.create_live_call(alice, state=CallState.WAITING)
        _, client = make_operator("view_livecall", "end_call")

        listed = client.get(PAGE, headers={"Accept-Language": "zh-hant"}).content.decode()
        page = act(client, "end_calls", waiting)

        assert "alice" in listed
        assert "等待中" in listed
        assert "1 call is ended." in page
        assert LiveCall.objects.get(pk=waiting.pk).state == CallState.ENDING

    def test_logs_a_person_out(self, alice: User, alices_client: Client) -> None:
        call = factories.create_live_call(alice)
        _, client = make_operator("view_livecall", "end_call")

        page = act(client, "log_people_out", call)

        assert "1 person is logged out." in page
        assert alices_client.get("/account/").status_code == 302
        assert LogEntry.objects.get().change_message == "Logged out."

    @pytest.mark.parametrize("action", ["end_calls", "log_people_out"])
    def test_does_neither_without_the_permission(self, alice: User, alices_client: Client, action: str) -> None:
        call = factories.create_live_call(alice)
        _, client = make_operator("view_livecall")

        act(client, action, call)

        assert LiveCall.objects.get().state == CallState.ACTIVE
        assert alices_client.get("/account/").status_code == 200
        assert not LogEntry.objects.exists()
