from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from avatar_site.monitoring.models import Alert, AlertState, Severity
from tests import factories

LIST = "/admin/monitoring/alert/"

pytestmark = pytest.mark.django_db


def log_in(*permissions: str) -> Client:
    operator = factories.create_user("operator", is_staff=True)
    operator.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client(headers={"accept-language": "en"})
    client.force_login(operator)
    return client


def open_alert(condition: str = "lost_turns", **fields: Any) -> Alert:
    now = timezone.now()
    defaults: dict[str, Any] = {
        "severity": Severity.ERROR,
        "opened_at": now,
        "last_seen_at": now,
        "figures": {"turns": 3},
    }
    return Alert.objects.create(condition=condition, **(defaults | fields))


def read(client: Client, address: str = LIST) -> str:
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()


def acknowledge(client: Client, *alerts: Alert) -> str:
    data = {"action": "acknowledge", "_selected_action": [alert.pk for alert in alerts]}
    return client.post(LIST, data, follow=True).content.decode()


class TestList:
    def test_says_each_alert_unresolved_first(self) -> None:
        now = timezone.now()
        open_alert(
            "backup_stale", state=AlertState.RESOLVED, resolved_at=now, figures={"backed_up_at": "", "hours": 27.0}
        )
        open_alert(opened_at=now - dt.timedelta(days=1))

        page = read(log_in("view_alert"))

        lost = page.index("3 turns could not be kept in the last ten minutes.")
        assert lost < page.index("There is no verified backup, 27 hours after the site began.")

    def test_is_filtered_by_condition(self) -> None:
        open_alert()
        open_alert("log_folder", severity=Severity.WARNING, figures={"bytes": 9e9, "limit_bytes": 8e9})

        page = read(log_in("view_alert"), f"{LIST}?condition=log_folder")

        assert "The logs take 8.4" in page
        assert "could not be kept" not in page

    def test_is_not_shown_to_others(self) -> None:
        assert log_in("view_sample").get(LIST).status_code == 403


class TestPage:
    def test_names_the_run_book(self) -> None:
        alert = open_alert()

        page = read(log_in("view_alert"), f"{LIST}{alert.pk}/change/")

        assert "docs/runbooks/alerts.md#lost_turns" in page
        assert '<input type="submit"' not in page


class TestAcknowledge:
    def test_writes_who_did_and_when(self) -> None:
        alert, resolved = open_alert(), open_alert("latency", state=AlertState.RESOLVED, resolved_at=timezone.now())

        page = acknowledge(log_in("view_alert", "change_alert"), alert, resolved)

        alert.refresh_from_db()
        resolved.refresh_from_db()
        assert "1 alert acknowledged." in page
        assert alert.state == AlertState.ACKNOWLEDGED
        assert alert.acknowledged_by == User.objects.get(username="operator")
        assert alert.acknowledged_at is not None
        assert resolved.state == AlertState.RESOLVED
        assert [entry.object_id for entry in LogEntry.objects.all()] == [str(alert.pk)]

    def test_is_not_for_those_who_may_only_look(self) -> None:
        alert = open_alert()

        page = acknowledge(log_in("view_alert"), alert)

        alert.refresh_from_db()
        assert alert.state == AlertState.OPEN
        assert "I take care of it" not in page


class TestBadge:
    def find(self, page: str) -> str:
        found = re.search(r'<a href="/admin/monitoring/alert/\?state__exact=open">(.*?)</a>', page)
        return found.group(1) if found else ""

    def test_counts_open_alerts_on_every_page(self) -> None:
        client = log_in("view_alert", "view_user")
        before = self.find(read(client, "/admin/auth/user/"))
        open_alert()
        open_alert("latency", severity=Severity.WARNING, figures={})
        open_alert("memory", state=AlertState.ACKNOWLEDGED)

        page = read(client, "/admin/auth/user/")

        assert (before, self.find(page)) == ("", "2 open alerts")

    def test_is_not_shown_to_others(self) -> None:
        open_alert()

        assert self.find(read(log_in("view_user"), "/admin/auth/user/")) == ""

    def test_speaks_taiwanese_chinese(self) -> None:
        open_alert()
        client = log_in("view_alert")
        client.defaults["HTTP_ACCEPT_LANGUAGE"] = "zh-hant"

        page = read(client)

        assert self.find(page) == "1 則警示未處理"
        assert "最近十分鐘有 3 則對話無法保存。" in page
