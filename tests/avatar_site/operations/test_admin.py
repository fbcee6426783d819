"""The page of backups. Backups are manifests in a folder: making real ones is tested where they are made."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async as sync
from celery import Task
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import AsyncClient, Client
from django.utils import timezone
from kombu.exceptions import OperationalError
from pytest_django import Settings as SettingsFixture

from avatar_site.operations import admin, maintenance
from avatar_site.operations.backups import listing
from avatar_site.operations.backups.copies import hold_backup_lock
from avatar_site.operations.backups.listing import Lister, Listing
from avatar_site.operations.backups.targets import TargetError
from avatar_site.operations.models import BackupRun, Restore, RunKind
from tests import factories
from tests.listed_backups import CONTENT, write_backup

PAGE = "/admin/operations/backuprun/"


@pytest.fixture(autouse=True)
def target(settings: SettingsFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    settings.AVATAR_DATA_DIR = tmp_path / "data"
    settings.AVATAR_BACKUP_TARGET = str(tmp_path / "target")
    monkeypatch.setattr(listing, "lister", Lister(listing.read_listing))
    maintenance.forget_request()
    return tmp_path / "target"


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    queued: list[tuple[str, Any]] = []
    monkeypatch.setattr(Task, "apply_async", lambda task, **options: queued.append((task.name, options["kwargs"])))
    return queued


def log_in(*permissions: str) -> Client:
    """Return an English client with permission to view backups, and the named permissions."""
    client = Client(headers={"accept-language": "en"})
    client.force_login(create_operator(*permissions))
    return client


def create_operator(*permissions: str) -> User:
    operator = factories.create_user("operator", is_staff=True)
    wanted = ("view_backuprun", *permissions)
    operator.user_permissions.set(Permission.objects.filter(codename__in=wanted))
    assert operator.user_permissions.count() == len(wanted)
    return operator


@pytest.mark.django_db
class TestPage:
    def test_shows_what_there_is(self) -> None:
        name = write_backup(hours_ago=5)

        page = log_in().get(PAGE).content.decode()

        for words in (
            name,
            "5\xa0hours ago",
            "185.5\xa0KB",
            "2312 audio files, 3.0\xa0GB",
            "verified",
            "1.4.0",
            "at night",
        ):
            assert words in page
        assert "no verified backup of the last 36 hours" not in page
        assert "encrypted" not in page

    def test_says_what_is_wrong_with_a_backup(self) -> None:
        write_backup(problem="conversations_turn has 3 rows instead of 4")
        write_backup(hours_ago=40, problem=None, is_encrypted=True)

        page = log_in().get(PAGE).content.decode()

        for words in ("damaged", "conversations_turn has 3 rows instead of 4", "not verified", "encrypted"):
            assert words in page
        assert "no verified backup of the last 36 hours" in page

    def test_invites_where_there_is_none(self) -> None:
        page = log_in("start_backup").get(PAGE).content.decode()

        assert "There is no backup yet" in page
        assert "no verified backup of the last 36 hours" not in page
        assert "Start a backup" in page

    def test_is_alarmed_when_the_first_one_fails(self) -> None:
        now = timezone.now()
        BackupRun.objects.create(
            kind=RunKind.BACKUP, state="failed", started_at=now, finished_at=now, problem="the bucket is away"
        )

        assert "no verified backup of the last 36 hours" in log_in().get(PAGE).content.decode()

    def test_shows_the_last_restore_drill(self) -> None:
        name = write_backup()
        now = timezone.now()
        BackupRun.objects.create(
            kind=RunKind.VERIFICATION,
            state="failed",
            name=name,
            started_at=now - dt.timedelta(hours=3),
            finished_at=now - dt.timedelta(hours=3),
            problem="a file is damaged",
        )

        page = log_in().get(PAGE).content.decode()

        assert "3\xa0hours ago · failed" in page
        assert "a file is damaged" in page

    def test_is_in_the_operators_language(self) -> None:
        write_backup(hours_ago=5)
        client = log_in("start_backup", "download_backup")

        page = client.get(PAGE, headers={"accept-language": "zh-hant"}).content.decode()

        for words in ("5\xa0小時前", "已驗證", "開始備份", "每晚"):
            assert words in page

    def test_is_for_those_who_may_see_it(self, alices_client: Client, bob: User) -> None:
        assert alices_client.get(PAGE).status_code == 302
        bob.is_staff = True
        bob.save()
        client = Client()
        client.force_login(bob)

        assert client.get(PAGE).status_code == 403

    def test_offers_nothing_that_is_not_allowed(self) -> None:
        write_backup()

        page = log_in().get(PAGE).content.decode()

        for address in ("back-up/", "verify/", "download/"):
            assert address not in page


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A target that does not answer until the event is set, and a page that waits for it for a moment only."""
    monkeypatch.setattr(admin, "LIST_TIMEOUT_S", 0.01)
    answers = threading.Event()

    def read() -> Listing:
        assert answers.wait(60)
        return Listing("s3://backups", timezone.now(), problem="s3://backups: it cannot be reached")

    monkeypatch.setattr(listing, "lister", Lister(read))
    yield answers
    answers.set()


@pytest.mark.django_db
class TestTargetThatIsAway:
    def test_does_not_hold_up_the_page(self, settings: SettingsFixture, stuck: threading.Event) -> None:
        settings.AVATAR_BACKUP_TARGET = "s3://backups"

        page = log_in().get(PAGE).content.decode()

        assert "s3://backups does not answer within five seconds" in page
        assert "unknown" in page

    def test_is_named_once_it_fails(self, settings: SettingsFixture, target: Path) -> None:
        target.write_text("a file in its place")

        page = log_in().get(PAGE).content.decode()

        assert f"{target} is not a folder" in page

    def test_is_told_to_who_downloads(self, stuck: threading.Event) -> None:
        client = log_in("download_backup")

        response = client.post(f"{PAGE}download/20260101T033000Z-abcd/", follow=True)

        assert "Nothing was downloaded: the target does not answer." in response.content.decode()
        assert not LogEntry.objects.exists()


@pytest.mark.django_db
class TestStart:
    def test_queues_a_backup_once(self, queued: list[tuple[str, Any]]) -> None:
        client = log_in("start_backup")

        first = client.post(f"{PAGE}back-up/", follow=True)
        second = client.post(f"{PAGE}back-up/", follow=True)

        operator = User.objects.get()
        assert queued == [("avatar_site.operations.tasks.back_up", {"requested_by_id": operator.pk})]
        assert "It begins within a minute" in first.content.decode()
        assert "One is asked for already" in second.content.decode()
        assert [entry.change_message for entry in LogEntry.objects.all()] == ["Asked for a backup."]

    def test_queues_a_verification(self, queued: list[tuple[str, Any]]) -> None:
        name = write_backup(problem=None)

        log_in("start_backup").post(f"{PAGE}verify/{name}/")

        ((task, arguments),) = queued
        assert (task, arguments["name"]) == ("avatar_site.operations.tasks.verify_backup", name)

    def test_does_nothing_while_one_runs(self, queued: list[tuple[str, Any]]) -> None:
        BackupRun.objects.create(kind=RunKind.BACKUP, started_at=timezone.now())

        with hold_backup_lock():
            response = log_in("start_backup").post(f"{PAGE}back-up/", follow=True)

        assert queued == []
        page = response.content.decode()
        assert "One is being made or verified right now" in page
        assert "In progress since" in page
        assert "Start a backup" not in page

    def test_is_possible_after_one_that_was_killed(self, queued: list[tuple[str, Any]]) -> None:
        BackupRun.objects.create(kind=RunKind.BACKUP, started_at=timezone.now())

        log_in("start_backup").post(f"{PAGE}back-up/")

        assert len(queued) == 1

    def test_says_when_the_queue_is_away_and_lets_them_try_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(task: Task, **options: Any) -> None:
            raise OperationalError("Connection refused")

        monkeypatch.setattr(Task, "apply_async", fail)

        response = log_in("start_backup").post(f"{PAGE}back-up/", follow=True)

        assert "It could not be queued: Connection refused" in response.content.decode()
        assert "Start a backup" in response.content.decode()

    @pytest.mark.parametrize("address", ["back-up/", "verify/20260101T033000Z-abcd/"])
    def test_takes_the_permission_and_a_button(self, queued: list[tuple[str, Any]], address: str) -> None:
        client = log_in("download_backup", "change_restore")

        assert client.post(f"{PAGE}{address}").status_code == 403
        assert client.get(f"{PAGE}{address}").status_code == 405
        assert queued == []


@pytest.mark.django_db(transaction=True)
class TestDownload:
    async def test_streams_the_database_as_it_is_stored_and_is_logged(self) -> None:
        name = write_backup(is_encrypted=True)
        client = AsyncClient()
        await client.aforce_login(await sync(create_operator)("download_backup"))

        response: Any = await client.post(f"{PAGE}download/{name}/")
        content = b"".join([piece async for piece in response.streaming_content])

        assert content == CONTENT
        assert response["Content-Length"] == str(len(CONTENT))
        assert response["Content-Disposition"] == f'attachment; filename="{name}.sqlite3.gz.age"'
        assert "no-store" in response["Cache-Control"]
        entry = await LogEntry.objects.aget()
        assert entry.change_message == f"Downloaded the database of backup {name}."

    async def test_is_cut_off_where_the_target_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        name = write_backup()
        client = AsyncClient()
        await client.aforce_login(await sync(create_operator)("download_backup"))
        monkeypatch.setattr(maintenance, "open_target", lambda: TargetThatBreaksOff())

        response: Any = await client.post(f"{PAGE}download/{name}/")
        with pytest.raises(TargetError, match="the bucket is away"):
            [piece async for piece in response.streaming_content]


@pytest.mark.django_db
class TestDownloadRefused:
    def test_without_the_permission(self) -> None:
        name = write_backup()

        assert log_in("start_backup").post(f"{PAGE}download/{name}/").status_code == 403
        assert not LogEntry.objects.exists()

    @pytest.mark.parametrize("name", ["20260101T033000Z-abcd", "..", "secret_key"])
    def test_where_there_is_none(self, name: str) -> None:
        assert log_in("download_backup").post(f"{PAGE}download/{name}/").status_code == 404


@pytest.mark.django_db
class TestConfirmRestore:
    def test_allows_sweeps_again(self) -> None:
        Restore.objects.create(name="20260101T033000Z-abcd", restored_at=timezone.now())
        client = log_in("change_restore", "view_restore")
        assert "Until you confirm it" in client.get(PAGE).content.decode()

        page = client.post(f"{PAGE}confirm-restore/", follow=True).content.decode()

        assert "Until you confirm it" not in page
        assert not Restore.objects.unconfirmed().exists()
        assert LogEntry.objects.get().change_message == "Confirmed a restore."

    def test_takes_the_permission(self) -> None:
        Restore.objects.create(name="20260101T033000Z-abcd", restored_at=timezone.now())
        client = log_in("start_backup")

        assert "It is right" not in client.get(PAGE).content.decode()
        assert client.post(f"{PAGE}confirm-restore/").status_code == 403
        assert Restore.objects.unconfirmed().exists()


class TargetThatBreaksOff:
    """Reads the first half of a file, and fails."""

    address = "s3://backups"

    def read(self, key: str, destination: Any) -> None:
        destination.write(CONTENT[: len(CONTENT) // 2])
        raise TargetError("the bucket is away")
