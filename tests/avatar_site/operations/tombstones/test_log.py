"""On SQLite here, and on PostgreSQL by tests/conversations/test_postgres.py."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import resource
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor

from avatar_site.operations.models import Tombstone
from avatar_site.operations.tombstones import log
from avatar_site.operations.tombstones.log import Entry, LogBusy
from conversations import services as conversations
from conversations.models import Turn, TurnSearch
from tests import factories

ROOT = Path(__file__).parents[4]
NOON = dt.datetime(2026, 11, 26, 12, tzinfo=dt.UTC)


def make_entry(table: str, key: str = "1", *, hour: int = 0, is_deletion: bool = False, **values: object) -> Entry:
    at = NOON + dt.timedelta(hours=hour)
    return Entry(
        sequence=hour + 1,
        installation="0" * 16,
        at=at,
        table=table,
        key=key,
        is_deletion=is_deletion,
        values=values,
    )


def write_rows(count: int = 1, table: str = "voices_preview") -> list[str]:
    keys = [str(uuid.uuid4()) for _ in range(count)]
    Tombstone.objects.bulk_create(
        Tombstone(at="2026-11-26T12:00:00.000Z", table=table, key=key, is_deletion=True, values="{}") for key in keys
    )
    return keys


def read_keys() -> list[str]:
    return [entry.key for entry in log.read_log()]


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """As a disk that is full after so much: the kernel writes a part, and refuses the rest."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.django_db(transaction=True)
class TestDrain:
    def test_moves_rows_to_the_file_in_their_order(self, tombstones_dir: Path) -> None:
        keys = write_rows(log.BATCH + 3)

        assert log.drain() == log.BATCH + 3

        assert read_keys() == keys
        assert [entry.sequence for entry in log.read_log()] == list(range(1, log.BATCH + 4))
        assert not Tombstone.objects.exists()
        assert log.drain() == 0

    def test_keeps_the_file_from_others(self, tombstones_dir: Path) -> None:
        write_rows()

        log.drain()

        assert tombstones_dir.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in tombstones_dir.iterdir()} == {0o600}

    def test_says_whose_they_are(self) -> None:
        write_rows(2)

        log.drain()

        assert {entry.installation for entry in log.read_log()} == {log.read_installation()}
        assert len(log.read_installation()) == 16

    def test_stops_after_as_many_as_a_request_may_take(self) -> None:
        write_rows(log.BATCH + 1)

        assert log.drain(max_rows=1) == log.BATCH
        assert Tombstone.objects.count() == 1

    def test_does_nothing_in_a_transaction_which_may_roll_back(self) -> None:
        with transaction.atomic():
            write_rows()
            assert log.drain() == 0

        assert log.drain() == 1

    def test_does_nothing_while_suspended(self) -> None:
        write_rows()

        with log.suspended():
            assert log.drain() == 0
        assert log.drain() == 1

    def test_goes_on_counting_after_a_restart(self) -> None:
        for _ in range(3):
            write_rows()
            log.drain()

        assert [entry.sequence for entry in log.read_log()] == [1, 2, 3]
        assert log.read_last_sequence() == 3

    def test_removes_a_line_that_a_crash_cut_off(self, tombstones_dir: Path) -> None:
        (first,) = write_rows()
        log.drain()
        with log.find_log().open("a") as file:
            file.write('{"sequence":2,"installation":"')
        assert read_keys() == [first]
        (second,) = write_rows()

        log.drain()

        assert read_keys() == [first, second]
        assert log.find_log().read_text().count("\n") == 2

    def test_reads_past_a_line_that_is_damaged(self, caplog: pytest.LogCaptureFixture) -> None:
        keys = write_rows(3)
        log.drain()
        lines = log.find_log().read_bytes().splitlines(keepends=True)
        log.find_log().write_bytes(b"".join([lines[0], b"\xff" + lines[1][1:], lines[2]]))

        assert read_keys() == [keys[0], keys[2]]
        assert "line 2" in caplog.text

    def test_leaves_the_rows_when_the_disk_is_full_and_no_part_of_a_line(self) -> None:
        (first,) = write_rows()
        log.drain()
        size_bytes = log.find_log().stat().st_size
        (second,) = write_rows()

        with files_of_at_most(size_bytes + 20), pytest.raises(OSError, match="File too large"):
            log.drain()

        assert log.find_log().stat().st_size == size_bytes
        assert Tombstone.objects.get().key == second
        assert log.drain() == 1
        assert read_keys() == [first, second]

    def test_waits_for_another_process_but_not_for_ever(self) -> None:
        write_rows()
        log.read_installation()

        with log.locked_file("lock", 0), pytest.raises(LogBusy):
            log.drain(timeout_s=0.02)

        assert log.drain() == 1

    def test_says_who_the_user_of_a_membership_was(self, alice: User) -> None:
        group = Group.objects.create(name="staff")
        permission = Permission.objects.get(codename="share_voiceprofile")
        with transaction.atomic():
            alice.groups.add(group)
            alice.user_permissions.add(permission)
            conversations.choose_retention(user=alice, audio_days=3, text_days=None)
        log.drain()

        in_group, permitted, choice = (entry.values for entry in log.read_log())
        assert {values["username"] for values in (in_group, permitted, choice)} == {"alice"}
        assert dt.datetime.fromisoformat(in_group["date_joined"]) == alice.date_joined.replace(microsecond=0)
        assert in_group["group"] == "staff"
        assert permitted["permission"] == "voices.share_voiceprofile"
        assert (choice["audio_days"], choice["text_days"]) == (3, None)

    def test_leaves_out_memberships_of_who_is_gone(self, alice: User) -> None:
        alice.groups.add(Group.objects.create(name="staff"))

        alice.delete()
        log.drain()

        assert [entry.table for entry in log.read_log() if entry.is_deletion] == ["auth_user"]
        assert not Tombstone.objects.exists()

    def test_writes_ids_as_python_does(self, alice: User) -> None:
        turn = factories.create_turn(factories.create_conversation(alice))
        TurnSearch.objects.all().delete()

        Turn.objects.all().delete()
        log.drain()

        (entry,) = log.read_log()
        assert entry.key == str(turn.pk)
        assert entry.values == {"conversation_id": str(turn.conversation_id)}


@pytest.mark.skipif(connection.vendor != "sqlite", reason="does nothing there: see test_watching.py")
@pytest.mark.django_db(transaction=True)
class TestDrainOrLeave:
    def test_says_once_that_it_cannot_write(self, tombstones_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, logger=log.__name__)
        tombstones_dir.mkdir()
        log.read_installation()
        # The kernel's own full disk.
        log.find_log().symlink_to("/dev/full")
        write_rows()

        for _ in range(3):
            log.drain_or_leave()

        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert "No space left" in caplog.text
        assert Tombstone.objects.count() == 1

        log.find_log().unlink()
        log.drain_or_leave()

        assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
        assert not Tombstone.objects.exists()

    def test_says_nothing_before_there_is_a_table(self, caplog: pytest.LogCaptureFixture) -> None:
        """During the migrations of a new site."""
        MigrationExecutor(connection).migrate([("operations", None)])
        try:
            log.drain_or_leave()
        finally:
            call_command("migrate", verbosity=0)

        assert [record.message for record in caplog.records if record.name == log.__name__] == []

    def test_leaves_it_to_the_process_that_has_the_log(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(log, "TIMEOUT_OF_A_REQUEST_S", 0.02)
        write_rows()
        log.read_installation()

        with log.locked_file("lock", 0):
            log.drain_or_leave()

        assert Tombstone.objects.count() == 1
        assert caplog.records == []


class TestReadInstallation:
    def test_is_made_once(self, tombstones_dir: Path) -> None:
        first = log.read_installation()

        assert log.read_installation() == first
        assert (tombstones_dir / "installation").stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize("damaged", [b"", b"../../x", b"\xff"])
    def test_is_made_again_where_it_is_none(self, tombstones_dir: Path, damaged: bytes) -> None:
        log.read_installation()
        (tombstones_dir / "installation").write_bytes(damaged)

        name = log.read_installation()

        assert log.INSTALLATION.fullmatch(name)
        assert log.read_installation() == name


class TestPrune:
    def write(self, *entries: Entry) -> None:
        log.find_log().write_bytes(b"".join(log.encode_line(entry) for entry in entries))

    def test_removes_what_is_older_than_every_backup(self) -> None:
        self.write(*(make_entry("voices_preview", str(hour), hour=hour, is_deletion=True) for hour in range(3)))

        assert log.prune(before=NOON + dt.timedelta(hours=2)) == 2

        assert read_keys() == ["2"]
        assert log.find_log().stat().st_mode & 0o777 == 0o600

    def test_removes_the_text_of_a_turn_that_was_deleted_later(self) -> None:
        self.write(
            make_entry("conversations_turn", text="a secret", hour=0),
            make_entry("conversations_turn", is_deletion=True, conversation_id="7", hour=1),
        )

        assert log.prune(before=NOON) == 1

        assert "secret" not in log.find_log().read_text()
        assert [entry.is_deletion for entry in log.read_log()] == [True]

    @pytest.mark.django_db(transaction=True)
    def test_goes_on_counting_where_it_was(self) -> None:
        write_rows(3)
        log.drain()

        assert log.prune(before=dt.datetime.max.replace(tzinfo=dt.UTC)) == 3

        assert read_keys() == []
        assert log.read_last_sequence() == 3
        (key,) = write_rows()
        log.drain()
        assert [(entry.key, entry.sequence) for entry in log.read_log()] == [(key, 4)]

    def test_of_nothing_writes_nothing(self, tombstones_dir: Path) -> None:
        assert log.prune(before=NOON) == 0
        assert not log.find_log().exists()

    def test_waits_for_who_writes(self, tombstones_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(log, "TIMEOUT_S", 0.02)

        with log.locked_file("lock", 0), pytest.raises(LogBusy):
            log.prune(before=NOON)


class TestCompact:
    def test_keeps_the_last_value_of_each_column(self) -> None:
        entries = [
            make_entry("voices_voiceprofile", availability="disabled", hour=0),
            make_entry("voices_voiceprofile", is_shared=0, hour=1),
            make_entry("voices_voiceprofile", availability="available", hour=2),
            make_entry("voices_voiceprofile", "2", availability="disabled", hour=0),
        ]

        kept = log.compact(entries)

        assert [(entry.key, entry.values) for entry in kept] == [
            ("2", {"availability": "disabled"}),
            ("1", {"is_shared": 0}),
            ("1", {"availability": "available"}),
        ]

    def test_keeps_of_values_that_were_written_together_those_that_still_hold(self) -> None:
        entries = [
            make_entry("auth_user", username="alice", date_joined="d", is_staff=0, is_active=0, hour=0),
            make_entry("auth_user", username="alice", date_joined="d", is_active=1, hour=1),
        ]

        assert [entry.values for entry in log.compact(entries)] == [
            {"username": "alice", "date_joined": "d", "is_staff": 0},
            {"username": "alice", "date_joined": "d", "is_active": 1},
        ]

    def test_tells_users_apart_that_had_one_id(self) -> None:
        """After a restore an id may be given again."""
        entries = [
            make_entry("auth_user", username="carol", date_joined="1", is_active=0, hour=0),
            make_entry("auth_user", username="dave", date_joined="2", is_deletion=True, hour=1),
        ]

        assert log.compact(entries) == entries

    def test_keeps_what_became_of_a_membership(self) -> None:
        held = {"user_id": 1, "group_id": 2, "date_joined": "1", "group": "staff"}
        entries = [
            make_entry("auth_user_groups", "1", is_deletion=True, hour=0, **held),
            make_entry("auth_user_groups", "2", hour=1, **held),
            make_entry("auth_user_groups", "3", is_deletion=True, hour=1, **held | {"group_id": 3}),
        ]

        assert log.compact(entries) == entries[1:]

    def test_leaves_out_turns_of_a_conversation_that_was_deleted(self) -> None:
        entries = [
            make_entry("conversations_turn", "1", text="x", conversation_id="7", hour=0),
            make_entry("conversations_turn", "1", is_deletion=True, conversation_id="7", hour=1),
            make_entry("conversations_turn", "2", is_deletion=True, conversation_id="8", hour=1),
            make_entry("conversations_conversation", "7", is_deletion=True, hour=1),
        ]

        assert log.compact(entries) == entries[2:]

    def test_does_not_depend_on_the_order_of_the_file(self) -> None:
        entries = [
            make_entry("voices_voiceprofile", availability="disabled", hour=1),
            make_entry("voices_voiceprofile", availability="available", hour=0),
        ]

        assert log.compact(entries) == entries[:1]


#: Deletes conversations in processes of its own, some of which it kills, and says what is left where.
HAMMER = """
import json, os, random, signal, sys, time
import django
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from avatar_site.operations.models import Tombstone
from avatar_site.operations.tombstones import log
from conversations.models import Conversation

def delete_all(part, parts):
    try:
        # By the key, not by the place in a list: the others delete while this one reads its own.
        for pk in Conversation.objects.order_by("pk").values_list("pk", flat=True):
            if pk.int % parts == part:
                Conversation.objects.filter(pk=pk).delete()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)

kills = int(sys.argv[1])
random.seed(kills)
call_command("migrate", verbosity=0)
owner = User.objects.create_user("alice")
Conversation.objects.bulk_create(Conversation(owner=owner) for _ in range(300))
keys = {str(pk) for pk in Conversation.objects.values_list("pk", flat=True)}
statuses = []
for attempt in range(kills + 1):
    connection.close()
    children = []
    for part in range(3):
        if (pid := os.fork()) == 0:
            delete_all(part, 3)
        children.append(pid)
    if attempt < kills:
        time.sleep(random.uniform(0.005, 0.1))
        for pid in children:
            os.kill(pid, signal.SIGKILL)
    statuses += [os.waitpid(pid, 0)[1] for pid in children]
left = {str(pk) for pk in Conversation.objects.values_list("pk", flat=True)}
undrained = Tombstone.objects.count()
log.drain()
entries = [entry for entry in log.read_log() if entry.table == "conversations_conversation"]
print(json.dumps({
    "left": len(left),
    "without_tombstone": len(keys - left - {entry.key for entry in entries}),
    "of_what_is_there": len(left & {entry.key for entry in entries}),
    "twice": len(entries) - len({entry.key for entry in entries}),
    "sequences_twice": len(entries) - len({entry.sequence for entry in entries}),
    "unreadable": len(log.find_log().read_bytes().splitlines()) - len(list(log.read_log())),
    "outbox": Tombstone.objects.count(),
    "statuses": sorted(set(statuses)),
}))
"""


def hammer(tmp_path: Path, *, kills: int) -> dict[str, object]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AVATAR_")} | {
        "DJANGO_SETTINGS_MODULE": "avatar_site.settings.base",
        "AVATAR_ENV_FILE": "",
        "AVATAR_PROFILE": "fake",
        "AVATAR_DATA_DIR": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    finished = subprocess.run(
        [sys.executable, "-c", HAMMER, str(kills)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    found: dict[str, object] = json.loads(finished.stdout)
    return found


@pytest.mark.skipif(connection.vendor != "sqlite", reason="they have a SQLite of their own")
class TestSeveralProcesses:
    def test_log_each_deletion_once(self, tmp_path: Path) -> None:
        found = hammer(tmp_path, kills=0)

        assert found == {
            "left": 0,
            "without_tombstone": 0,
            "of_what_is_there": 0,
            "twice": 0,
            "sequences_twice": 0,
            "unreadable": 0,
            "outbox": 0,
            "statuses": [0],
        }

    def test_lose_no_deletion_when_they_are_killed(self, tmp_path: Path) -> None:
        found = hammer(tmp_path, kills=10)

        # A process that is killed between the log and the table writes one twice: harmless.
        found.pop("twice")
        assert found == {
            "left": 0,
            "without_tombstone": 0,
            "of_what_is_there": 0,
            "sequences_twice": 0,
            "unreadable": 0,
            "outbox": 0,
            "statuses": [0, 9],
        }
