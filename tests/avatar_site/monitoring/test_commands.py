from __future__ import annotations

import datetime as dt
from io import StringIO

import pytest
from django.core import mail
from django.core.management import CommandError, call_command
from pytest_django import Settings

from avatar_site.monitoring.models import Alert, AlertState, Severity
from tests.ports import find_free_port

NOW = dt.datetime(2026, 11, 27, 4, 0, 12, tzinfo=dt.UTC)

pytestmark = pytest.mark.django_db


def call(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


class TestListAlerts:
    def test_says_what_is_wrong_now(self) -> None:
        for condition, state in (("lost_turns", AlertState.OPEN), ("latency", AlertState.RESOLVED)):
            Alert.objects.create(
                condition=condition,
                severity=Severity.ERROR,
                state=state,
                figures={"turns": 3},
                opened_at=NOW,
                last_seen_at=NOW,
            )

        assert call("list_alerts") == (
            "2026-11-27 12:00  error    open          lost_turns: 3 turns could not be kept in the last ten minutes.\n"
        )
        assert len(call("list_alerts", "--all").splitlines()) == 2

    def test_says_when_nothing_is(self) -> None:
        assert call("list_alerts") == "There is no alert.\n"


class TestSendTestAlert:
    def test_is_sent_and_not_kept(self, settings: Settings) -> None:
        settings.AVATAR_ALERT_EMAILS = ["operator@example.tw"]

        assert call("send_test_alert") == "email: sent\n"

        assert [message.subject for message in mail.outbox] == ["AVATAR: test"]
        assert not Alert.objects.exists()

    def test_says_why_one_was_not_sent_and_sends_the_other(self, settings: Settings) -> None:
        settings.AVATAR_ALERT_EMAILS = ["operator@example.tw"]
        settings.AVATAR_ALERT_WEBHOOK_URL = f"http://127.0.0.1:{find_free_port()}/"

        with pytest.raises(CommandError, match=r"^webhook: ConnectError$"):
            call("send_test_alert")

        assert len(mail.outbox) == 1

    def test_says_when_nobody_is_told(self) -> None:
        with pytest.raises(CommandError, match="Nobody is told of alerts"):
            call("send_test_alert")
