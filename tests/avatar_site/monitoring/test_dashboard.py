"""The operators' first page, as the server answers it."""

from __future__ import annotations

import datetime as dt
import json
import re
import time
import uuid
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings as SettingsFixture

from avatar_site.monitoring import dashboard, queries
from avatar_site.monitoring.models import Sample
from avatar_site.operations.status import Health, Snapshot, get_prober
from realtime.models import LiveCall
from tests import factories
from tests.measured_site import GIB, PROCESSES, MeasuredSite, write_alerts, write_backup

PAGE = "/admin/"
#: Words of the mainland.
MAINLAND = re.compile("用戶|默認|信息|數據庫|內存|硬盤|服務器|鏈接|視頻|實時|響應")


@pytest.fixture(autouse=True)
def _forgets_what_was_cached() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


def log_in(*permissions: str, language: str = "en", **fields: bool) -> Client:
    user = factories.create_user("operator", is_staff=True, **fields)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client(headers={"accept-language": language})
    client.force_login(user)
    return client


def read_page(client: Client, span: str = "hour") -> str:
    answer = client.get(PAGE, {"span": span})
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


def read_tile(page: str, key: str) -> tuple[str, str, str]:
    """The level, value and detail of a tile."""
    pattern = rf'is-(\w+) tile-{key}">.*?dash-value">(.*?)</p> <p class="dash-detail"[^>]*>(.*?)</p>'
    found = re.search(pattern, page)
    assert found
    return found[1], found[2], found[3].replace("\xa0", " ")


@pytest.mark.django_db
class TestPage:
    @pytest.mark.parametrize("span", ["hour", "day", "month", "nonsense"])
    def test_draws_each_chart_with_its_summary(self, span: str) -> None:
        MeasuredSite(steady=0.6).write(now=timezone.now(), days=1 / 24)

        page = read_page(log_in(is_superuser=True), span)

        for key in ("first-sound", "sessions", "errors", "memory", "disk"):
            assert f"panel-{key}" in page
        assert page.count('<svg viewBox="0 0 1000 100"') == 5
        assert "target 3.5 s" in page
        assert "Asia/Taipei" in page

    def test_tells_the_tooltip_what_each_slot_has(self) -> None:
        MeasuredSite(steady=0.6).write(now=timezone.now(), days=1 / 24)

        page = read_page(log_in(is_superuser=True))

        told = [json.loads(each) for each in re.findall(r'application/json">(.*?)</script>', page)]
        assert [len(each["points"]) for each in told if each["names"][0][0] == "at most"] == [60]
        for each in told:
            assert {len(point) for point in each["points"]} == {len(each["names"]) + 1}

    def test_says_why_it_is_empty_before_the_first_sample(self) -> None:
        page = read_page(log_in(is_superuser=True))

        assert "Nothing has been measured yet" in page
        assert "<svg viewBox" not in page
        assert read_tile(page, "state")[:2] == ("warning", "Unknown")
        assert "Nobody is talking right now." in page
        assert "Nothing has been kept yet" in page

    def test_says_that_nobody_spoke_where_nobody_did(self) -> None:
        MeasuredSite(steady=0).write(now=timezone.now(), days=1 / 24)

        page = read_page(log_in(is_superuser=True))

        assert "Nobody has been answered in this time." in page
        assert "No errors in this time." in page

    def test_shows_the_admins_own_list_to_those_who_may_not_see_samples(self) -> None:
        page = read_page(log_in("view_backuprun"))

        assert "dash-tiles" not in page
        assert "/admin/operations/backuprun/" in page

    def test_names_people_only_to_those_who_may_see_them(self) -> None:
        alice = factories.create_user("alice-the-person")
        LiveCall.objects.create(
            session_id=uuid.uuid4(), user=alice, process="main:1", began_at=timezone.now(), last_seen_at=timezone.now()
        )
        factories.create_turn(factories.create_conversation(alice), audio_duration_ms=60_000)

        assert "alice-the-person" not in read_page(log_in("view_sample"))
        cache.clear()
        User.objects.filter(username="operator").delete()
        assert read_page(log_in("view_sample", "view_user", "view_livecall")).count("alice-the-person") == 2

    def test_speaks_taiwanese_chinese(self) -> None:
        MeasuredSite(steady=0.6, has_gpu=True).write(now=timezone.now(), days=1 / 24)
        client = log_in(is_superuser=True, language="zh-hant")

        page = read_page(client)

        shown = page[page.index('<div class="dash"') : page.index('<section class="dash-data"')]
        icons = r'<span class="material-symbols-outlined[^>]*>\w+</span>'
        words = re.sub(rf"<script.*?</script>|{icons}|<[^>]+>", " ", shown)
        assert MAINLAND.findall(page) == []
        for expected in ("最近一小時", "多久開口", "記憶體用量", "磁碟剩餘", "何時該擴充", "每個人的用量"):
            assert expected in words
        names = {"Asia", "Taipei", "AVATAR", *PROCESSES, "PROCESSING", "ERROR", "INFERENCE", "UNAVAILABLE", "operator"}
        assert set(re.findall("[A-Za-z]{4,}", words)) <= names

    def test_forgets_the_name_of_a_deleted_person_at_once(self) -> None:
        alice = factories.create_user("alice-the-person")
        factories.create_turn(factories.create_conversation(alice), audio_duration_ms=60_000)
        client = log_in(is_superuser=True)
        assert "alice-the-person" in read_page(client)

        User.objects.filter(pk=alice.pk).delete()

        assert "alice-the-person" not in read_page(client)

    def test_takes_few_queries_once_the_month_is_kept(self) -> None:
        MeasuredSite(steady=0.6).write(now=timezone.now(), days=1 / 24)
        client = log_in(is_superuser=True)
        read_page(client)

        with CaptureQueriesContext(connection) as captured:
            read_page(client)

        assert len([each for each in captured if "monitoring_sample" in each["sql"]]) <= 8
        assert len(captured) < 25


@pytest.mark.django_db
class TestTiles:
    def test_are_good_on_a_good_day(self) -> None:
        MeasuredSite(steady=0.3, bytes_a_day=0).write(now=timezone.now(), days=1 / 24)

        page = read_page(log_in(is_superuser=True))

        assert read_tile(page, "state") == ("good", "Healthy", "No alert is open.")
        assert read_tile(page, "sessions")[:2] == ("good", "0 of 5")
        assert read_tile(page, "backup") == ("none", "none yet", "One is made and verified every night.")

    def test_warn_of_a_site_that_has_no_backup_after_its_first_night(self) -> None:
        MigrationRecorder.Migration.objects.update(applied=timezone.now() - dt.timedelta(hours=27))

        page = read_page(log_in(is_superuser=True))

        assert read_tile(page, "backup")[:2] == ("warning", "none yet")

    def test_say_which_alert_is_open(self) -> None:
        MeasuredSite(steady=0.6).write(now=timezone.now(), days=1 / 24)
        write_alerts(now=timezone.now())

        page = read_page(log_in(is_superuser=True))

        level, value, detail = read_tile(page, "state")
        assert (level, value) == ("bad", "Needs a look")
        assert detail.startswith("One in twenty replies begins after 5.02 s")
        assert detail.endswith("and 2 more")
        assert "The fallback kokoro 82m does the work of the voice engine" in page

    def test_say_only_that_alerts_are_open_to_who_may_not_see_them(self) -> None:
        MeasuredSite(steady=0.6).write(now=timezone.now(), days=1 / 24)
        write_alerts(now=timezone.now())

        page = read_page(log_in("view_sample"))

        assert read_tile(page, "state") == ("bad", "Needs a look", "Alerts are open.")
        assert "One in twenty replies begins" not in page
        assert "/admin/monitoring/alert/" not in page

    def test_hold_figures_against_the_thresholds_of_the_alerts(self, settings: SettingsFixture) -> None:
        settings.AVATAR_ALERT_LATENCY_S = 0.5
        settings.AVATAR_ALERT_MEMORY_PERCENT = 20
        settings.AVATAR_ALERT_DISK_GB = 1000
        settings.AVATAR_ALERT_BACKUP_HOURS = 2
        MeasuredSite(steady=0.6).write(now=timezone.now(), days=1 / 24)
        write_backup(taken_at=timezone.now() - dt.timedelta(hours=3))

        page = read_page(log_in(is_superuser=True))

        levels = {key: read_tile(page, key)[0] for key in ("first-sound", "memory", "disk", "backup")}
        assert levels == {"first-sound": "bad", "memory": "bad", "disk": "bad", "backup": "warning"}
        assert "target 0.5 s" in page

    def test_count_errors_that_are_ours(self) -> None:
        counts = {"turns": 20, "errors.PROCESSING_ERROR": 3, "errors.SERVER_FULL": 40}
        at = timezone.now().replace(second=0, microsecond=0) - dt.timedelta(minutes=2)
        Sample.objects.create(source="web a:1", began_at=at, values={"counts": counts})

        page = read_page(log_in(is_superuser=True))

        assert read_tile(page, "errors") == ("bad", "3", "1 h: in 20 turns · 13.0%")
        assert "SERVER_FULL" not in page

    @pytest.mark.parametrize(
        ("health", "level", "value"),
        [(Health.DEGRADED, "warning", "Degraded"), (Health.UNHEALTHY, "bad", "Unhealthy")],
    )
    def test_say_what_the_prober_found(
        self, monkeypatch: pytest.MonkeyPatch, health: Health, level: str, value: str
    ) -> None:
        MeasuredSite(steady=0.6).write(now=timezone.now(), days=1 / 24)
        found = Snapshot(health, ("tts_on_fallback", "worker_down"), taken_s=time.monotonic())
        monkeypatch.setattr(get_prober(), "_snapshot", found)

        page = read_page(log_in(is_superuser=True))

        assert read_tile(page, "state") == (level, value, "The voice engine runs on its fallback. · and 1 more")

    def test_do_not_call_a_site_healthy_that_measures_nothing_any_more(self) -> None:
        MeasuredSite(steady=0.6).write(now=timezone.now() - dt.timedelta(minutes=10), days=1 / 24)

        assert read_tile(read_page(log_in(is_superuser=True)), "state")[:2] == ("warning", "Unknown")

    def test_count_calls_of_processes_that_live(self) -> None:
        now = timezone.now()
        for number, (state, age) in enumerate((("active", 0), ("active", 5), ("waiting", 0), ("active", 600))):
            LiveCall.objects.create(
                session_id=uuid.uuid4(),
                user=factories.create_user(f"caller{number}"),
                state=state,
                process="main:1",
                began_at=now,
                last_seen_at=now - dt.timedelta(seconds=age),
            )

        level, value, detail = read_tile(read_page(log_in(is_superuser=True)), "sessions")

        assert (level, value, detail) == ("good", "2 of 5", "1 waiting")


@pytest.mark.django_db
class TestOutlook:
    def test_names_the_day_on_which_the_disk_is_full(self) -> None:
        now = timezone.now()
        MeasuredSite(free_bytes=20 * GIB, bytes_a_day=2 * GIB).write(now=now, days=6, minutes_for_days=0.05)

        found = dashboard.compute_outlook(queries.read_slots(queries.MONTH, now=now), now=now)

        assert found.trend is not None
        assert found.trend.full_at is not None
        assert abs(found.trend.full_at - now - dt.timedelta(days=10)) < dt.timedelta(hours=12)

    def test_reads_days_that_are_over_once(self) -> None:
        now = timezone.localtime().replace(hour=10, minute=30)
        for days_ago in (3, 0):
            at = (now - dt.timedelta(days=days_ago, minutes=5)).replace(second=0, microsecond=0)
            Sample.objects.create(source="web a:1", began_at=at, values={"counts": {"turns": 1}})
        first = dashboard.read_month(now)
        Sample.objects.all().delete()

        later = dashboard.read_month(now)

        assert [slot.values is not None for slot in first[-4:]] == [True, False, False, True]
        assert [slot.values is not None for slot in later[-4:]] == [True, False, False, False]

    def test_survives_what_another_version_has_kept(self) -> None:
        now = timezone.localtime().replace(hour=10, minute=30)
        begin = queries.MONTH.find_begin(now)
        cache.set("monitoring.days", {begin.isoformat(): {"gauges": {"moons": [1, 1]}, "new": 7}})

        first, *_ = dashboard.read_month(now)

        assert first.values is not None
        assert first.values.gauges["moons"].mean == 1

    def test_says_of_each_condition_whether_it_is_met(self) -> None:
        now = timezone.now()
        MeasuredSite(busy=2, slow_hours=(), bytes_a_day=0).write(now=now, days=9, minutes_for_days=0.05)

        page = read_page(log_in(is_superuser=True))

        assert re.search(r"Every place was taken on 3 of 7 days</span> <p>yes: [3-7] of 7 days<br>Raise", page)
        assert re.search(r"The first sound came late on 3 of 7 days</span> <p>no: 0 of \d days</p>", page)
        assert "The disk is full within 60 days</span> <p>no: not full within two years</p>" in page

    def test_leaves_today_out_of_the_days_it_judges(self) -> None:
        now = timezone.localtime().replace(hour=10, minute=30)
        for days_ago in range(4):
            at = now - dt.timedelta(days=days_ago)
            Sample.objects.create(
                source="web a:1", began_at=at.replace(second=0, microsecond=0), values={"gauges": {"sessions": [5, 5]}}
            )

        found = dashboard.compute_outlook(queries.read_slots(queries.MONTH, now=now), now=now)

        (places,) = [each for each in found.verdicts if each.shortage == "places"]
        assert (places.is_met, places.measured_days) == (True, 3)
