"""What was said and is deleted is not in the pages of the database either."""

from __future__ import annotations

import datetime as dt
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.utils import timezone

from avatar_site.lib import fts5, sqlite_erasure
from conversations import deletion, retention, services
from conversations.models import Conversation, Turn
from tests import factories
from tests.bench.history import say

#: As it is said, as the index has it, and both in Chinese.
SECRETS = (b"Zanzibar", b"zanzibar", "鳳梨酥".encode(), b"u9cf3 u68a8 u9165")

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif("connection.vendor != 'sqlite'", reason="PostgreSQL's autovacuum does it"),
]


def find_secrets() -> list[tuple[str, bytes]]:
    """In which of the database's files which of the secrets can be read."""
    database = Path(str(connection.settings_dict["NAME"]))
    files = [(path.name, path.read_bytes()) for path in database.parent.glob(f"{database.name}*")]
    return [(name, secret) for name, data in files for secret in SECRETS if secret in data]


def open_connection() -> sqlite3.Connection:
    return sqlite3.connect(str(connection.settings_dict["NAME"]))


@pytest.fixture
def secret(alice: User, bob: User) -> Turn:
    """Said between much else, so that what is deleted lies among what stays."""
    generator = random.Random(5)
    others = [factories.create_conversation(owner) for owner in (alice, bob)]
    for number in range(40):
        factories.create_turn(others[number % 2], text=say(generator).replace("鳳梨酥", ""))
    turn = factories.create_turn(factories.create_conversation(alice), text="Zanzibar 鳳梨酥")
    for number in range(40):
        factories.create_turn(others[number % 2], text=say(generator).replace("鳳梨酥", ""))
    connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    # The search finds what there is to be found.
    assert {found for _, found in find_secrets()} >= {SECRETS[0], SECRETS[1], SECRETS[2]}
    return turn


def delete_conversation(turn: Turn) -> None:
    deletion.delete_conversations(conversations=Conversation.objects.filter(pk=turn.conversation_id))


def correct_again(turn: Turn) -> None:
    """What had been heard stays as long as its turn; what an earlier correction said goes."""
    Turn.objects.filter(pk=turn.pk).update(heard_text="harmless", corrected_at=timezone.now())
    services.correct_turn(conversation_id=turn.conversation_id, turn_id=turn.pk, text="later", supersede=False)


def expire(turn: Turn) -> None:
    now = timezone.now()
    Turn.objects.filter(pk=turn.pk).update(created_at=now - dt.timedelta(days=100))
    retention.purge_expired(now=now)


def remove_person(turn: Turn) -> None:
    turn.conversation.owner.delete()


class TestDeletedWords:
    @pytest.mark.parametrize("delete", [delete_conversation, correct_again, expire, remove_person])
    def test_are_nowhere_in_the_database(self, secret: Turn, delete: Callable[[Turn], None], settings: Any) -> None:
        settings.AVATAR_RETENTION_TEXT_DAYS = 90

        delete(secret)

        assert find_secrets() == []
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO conversations_turnsearch_fts(conversations_turnsearch_fts) VALUES ('integrity-check')"
            )

    def test_go_with_what_an_operator_deletes(self, secret: Turn, admin_client: Client) -> None:
        admin_client.post(f"/admin/conversations/conversation/{secret.conversation_id}/delete/", {"post": "yes"})

        assert find_secrets() == []

    @pytest.mark.parametrize("delete", [delete_conversation, correct_again, expire, remove_person])
    def test_go_though_other_connections_stay_open(
        self, secret: Turn, delete: Callable[[Turn], None], settings: Any
    ) -> None:
        """As those of web and worker do: none that closes last empties the log."""
        settings.AVATAR_RETENTION_TEXT_DAYS = 90
        others = [open_connection() for _ in range(3)]
        for other in others:
            assert other.execute("SELECT count(*) FROM conversations_turn").fetchone() == (81,)

        delete(secret)

        assert find_secrets() == []
        for other in others:
            other.close()

    def test_that_a_reader_holds_on_to_go_when_it_has_read(self, secret: Turn, monkeypatch: pytest.MonkeyPatch) -> None:
        cache.clear()
        queued: list[Any] = []
        monkeypatch.setattr(sqlite_erasure.erase, "apply_async", lambda **options: queued.append(options))
        # What it reads is in the log.
        factories.create_turn(secret.conversation, text="Zanzibar")
        reader = open_connection()
        reading = reader.execute("SELECT text FROM conversations_turn")
        reading.fetchone()
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout = 0")

        delete_conversation(secret)
        assert find_secrets() != []
        assert queued == [{"kwargs": {"attempt": 0}, "countdown": 60}]

        reading.close()
        reader.close()
        sqlite_erasure.erase()
        assert find_secrets() == []
        connection.close()

    def test_of_a_long_memory_go_in_a_task_that_is_queued_once(
        self, secret: Turn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache.clear()
        monkeypatch.setattr(sqlite_erasure, "MAX_BYTES_AT_ONCE", 10)
        queued: list[Any] = []
        monkeypatch.setattr(sqlite_erasure.erase, "apply_async", lambda **options: queued.append(options))

        delete_conversation(secret)
        delete_conversation(Turn.objects.exclude(conversation__owner=secret.conversation.owner)[0])
        assert find_secrets() != []
        assert queued == [{"kwargs": {"attempt": 0}, "countdown": 60}]

        sqlite_erasure.erase()
        assert find_secrets() == []
        assert cache.get(sqlite_erasure.IS_QUEUED) is None

    def test_go_in_steps_between_which_others_write(self, secret: Turn, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fts5, "PAGES_A_STEP", 1)
        steps: list[int] = []
        merge = fts5._merge

        def count(database: sqlite3.Connection, table: str, pages: int) -> bool:
            steps.append(pages)
            if len(steps) == 2:
                factories.create_turn(secret.conversation, text="said meanwhile")
            return merge(database, table, pages)

        Turn.objects.filter(pk=secret.pk).delete()
        monkeypatch.setattr(fts5, "_merge", count)
        sqlite_erasure.erase_deleted_rows()

        assert steps[:2] == [-1, 1]
        assert len(steps) >= 3
        assert not [found for _, found in find_secrets() if found == b"zanzibar"]
