"""On SQLite here, and on PostgreSQL by tests/conversations/test_postgres.py."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.core.management.sql import emit_post_migrate_signal, emit_pre_migrate_signal
from django.db import connection, models, transaction
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from avatar_site.operations.models import Tombstone
from avatar_site.operations.tombstones import triggers
from conversations import orphans
from conversations import services as conversations
from conversations.models import Conversation, RetentionChoice, Turn, TurnSearch
from tests import factories
from voices import services as voices
from voices.models import Preview, Recording, VoiceProfile

pytestmark = pytest.mark.django_db

FLAC = factories.make_flac()


def read_outbox() -> list[tuple[str, bool, dict[str, Any]]]:
    """What was written, oldest first, but for its time and key."""
    rows = Tombstone.objects.order_by("pk").values_list("table", "is_deletion", "values")
    return [(table, is_deletion, json.loads(values)) for table, is_deletion, values in rows]


def read_deletions(table: str) -> set[str]:
    keys = Tombstone.objects.filter(table=table, is_deletion=True).values_list("key", flat=True)
    return {str(uuid.UUID(key)) if len(key) >= 32 else key for key in keys}


def read_changes(table: str) -> list[dict[str, Any]]:
    return [values for name, is_deletion, values in read_outbox() if name == table and not is_deletion]


def create_voice_with_all(owner: User) -> VoiceProfile:
    profile = factories.create_voice_profile(owner=owner)
    consent = voices.declare_consent(user=owner, attestation="own_voice")
    consent.save()
    Recording.objects.create(
        profile=profile,
        consent=consent,
        audio="voices/1/a.flac",
        size_bytes=1,
        duration_s=1,
        speech_s=1,
        snr_db=1,
        clipped_share=0,
    )
    Preview.objects.create(
        profile=profile,
        requested_by=owner,
        text_sha256="0" * 64,
        voice_version=1,
        quality="fast",
        made_with="fast",
        audio="voices/1/a.wav",
        duration_ms=1,
    )
    return profile


def delete_by_instance(rows: models.QuerySet[Any]) -> None:
    for row in rows:
        row.delete()


def delete_fast(rows: models.QuerySet[Any]) -> None:
    rows._raw_delete("default")


def delete_by_sql(rows: models.QuerySet[Any]) -> None:
    keys = [row.pk.hex if isinstance(row.pk, uuid.UUID) and connection.vendor == "sqlite" else row.pk for row in rows]
    with connection.cursor() as cursor:
        for key in keys:
            cursor.execute(f"DELETE FROM {rows.model._meta.db_table} WHERE id = %s", [key])  # noqa: S608 — a table of ours


class TestDeletions:
    @pytest.mark.parametrize("delete", [delete_by_instance, models.QuerySet.delete, delete_fast, delete_by_sql])
    @pytest.mark.parametrize("model", [Recording, Preview, Turn])
    def test_are_seen_in_every_way(
        self, alice: User, model: type[models.Model], delete: Callable[[models.QuerySet[Any]], object]
    ) -> None:
        create_voice_with_all(alice)
        factories.create_turn(factories.create_conversation(alice))
        TurnSearch.objects.all().delete()
        rows: models.QuerySet[Any] = model._default_manager.all()
        key = str(rows.get().pk)

        delete(rows)

        assert read_deletions(model._meta.db_table) == {key}

    def test_of_a_user_are_those_of_all_that_it_had(self, alice: User) -> None:
        profile = create_voice_with_all(alice)
        turn = factories.create_turn(factories.create_conversation(alice))
        group = Group.objects.create(name="staff")
        alice.groups.add(group)
        alice.user_permissions.add(Permission.objects.all()[0])
        key = str(alice.pk)

        alice.delete()

        assert read_deletions("auth_user") == {key}
        assert read_deletions("voices_voiceprofile") == {str(profile.pk)}
        assert len(read_deletions("voices_consent")) == 2
        assert read_deletions("conversations_conversation") == {str(turn.conversation_id)}
        assert read_deletions("conversations_turn") == {str(turn.pk)}
        tables = {table for table, is_deletion, _ in read_outbox() if is_deletion}
        assert tables == {each.table for each in triggers.WATCHED} - {
            "auth_group",
            "auth_group_permissions",
            "conversations_retentionchoice",
        }

    def test_of_a_user_say_who_it_was(self, alice: User) -> None:
        alice.delete()

        (values,) = [values for table, _, values in read_outbox() if table == "auth_user"]
        assert values["username"] == "alice"
        assert values["date_joined"]

    def test_of_a_turn_say_which_conversation_it_was_in(self, alice: User) -> None:
        turn = factories.create_turn(factories.create_conversation(alice))

        Turn.objects.filter(pk=turn.pk).delete()

        ((_, _, values),) = read_outbox()
        assert uuid.UUID(values["conversation_id"]) == turn.conversation_id

    def test_of_memberships_are_written_as_what_comes_after(self, alice: User) -> None:
        group = Group.objects.create(name="staff")
        permission = Permission.objects.all()[0]
        group.permissions.add(permission)
        alice.groups.add(group)

        alice.groups.clear()
        alice.groups.add(group)
        group.permissions.clear()

        ids = {"user_id": alice.pk, "group_id": group.pk}
        assert [
            (is_deletion, values) for table, is_deletion, values in read_outbox() if table == "auth_user_groups"
        ] == [
            (False, ids),
            (True, ids),
            (False, ids),
        ]
        assert [is_deletion for table, is_deletion, _ in read_outbox() if table == "auth_group_permissions"] == [
            False,
            True,
        ]

    def test_that_are_rolled_back_leave_nothing(self, alice: User) -> None:
        factories.create_turn(factories.create_conversation(alice))

        with transaction.atomic():
            Conversation.objects.all().delete()
            assert read_outbox()
            transaction.set_rollback(True)

        assert read_outbox() == []

    def test_of_what_was_dropped_or_is_not_kept_anywhere_else_are_no_tombstones(self) -> None:
        """A model is watched, or it holds nothing that a restore must not bring back."""
        harmless = {
            # Goes with its turn, its voice, or its user.
            "conversations_turnsearch",
            "voices_voicejob",
            "voices_voicepreference",
            # Counts.
            "conversations_retentionrun",
            "conversations_storagecheck",
            "voices_buildcount",
        }
        ours = {
            model._meta.db_table
            for label in ("conversations", "voices", "auth")
            for model in apps.get_app_config(label).get_models(include_auto_created=True)
        }

        assert ours - harmless - {"auth_permission"} == {each.table for each in triggers.WATCHED}


class TestChanges:
    def test_of_a_users_rights(self, alice: User) -> None:
        User.objects.filter(pk=alice.pk).update(is_active=False)
        User.objects.filter(pk=alice.pk).update(is_staff=True, is_superuser=True)
        alice.refresh_from_db()
        alice.set_password("another")
        alice.save()

        changes = read_changes("auth_user")
        assert [change.pop("username") for change in changes] == ["alice"] * 4
        assert all(change.pop("date_joined") for change in changes)
        assert {name: bool(value) for change in changes[:3] for name, value in change.items()} == {
            "is_active": False,
            "is_staff": True,
            "is_superuser": True,
        }
        assert changes[3] == {"password": alice.password}

    def test_that_change_nothing_are_not_written(self, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice)
        turn = factories.create_turn(factories.create_conversation(alice))

        for row in (
            User.objects.get(pk=alice.pk),
            VoiceProfile.objects.get(pk=profile.pk),
            Turn.objects.get(pk=turn.pk),
        ):
            row.save()
        User.objects.filter(pk=alice.pk).update(last_login=None, is_active=True, first_name="A")

        assert read_outbox() == []

    def test_of_a_voice_that_is_disabled_or_not_shared_any_more(self, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice, is_shared=True)

        voices.disable(profile=profile)
        voices.unshare(profile=profile)

        first, second = read_changes("voices_voiceprofile")
        assert first == {"availability": "disabled"}
        assert not second.pop("is_shared")
        assert second == {}

    def test_of_a_turn_that_is_corrected_and_of_those_after_it(self, alice: User) -> None:
        conversation = factories.create_conversation(alice)
        turn = factories.create_turn(conversation, text="wrong")
        factories.create_turn(conversation, speaker="avatar", text="reply")

        conversations.correct_turn(conversation_id=conversation.pk, turn_id=turn.pk, text="right", supersede=True)

        correction, superseded = read_changes("conversations_turn")
        assert correction.pop("corrected_at")
        assert correction == {"text": "right", "heard_text": "wrong", "conversation_id": turn_conversation(turn)}
        assert superseded["is_superseded"] in (1, True)
        assert [change["title"] for change in read_changes("conversations_conversation")] == ["right"]

    def test_of_a_reply_in_progress_are_none(self, alice: User) -> None:
        conversation = factories.create_conversation(alice)
        reply: dict[str, Any] = {
            "conversation_id": conversation.pk,
            "turn_id": uuid.uuid4(),
            "language": "zh",
            "voice_profile_id": None,
        }
        conversations.begin_turn(text="one", **reply)
        conversations.begin_turn(text="one two", **reply)
        factories.create_turn(conversation, turn_id=reply["turn_id"], speaker="avatar", text="one two three")

        assert read_outbox() == []

    def test_of_a_reply_in_progress_that_is_superseded_is_one(self, alice: User) -> None:
        conversation = factories.create_conversation(alice)
        conversations.begin_turn(
            conversation_id=conversation.pk, turn_id=uuid.uuid4(), text="one", language="zh", voice_profile_id=None
        )

        conversation.turns.update(is_superseded=True)

        assert [bool(change["is_superseded"]) for change in read_changes("conversations_turn")] == [True]

    def test_of_audio_are_its_removal_only(self, alice: User) -> None:
        turn = factories.create_turn(factories.create_conversation(alice))
        Turn.objects.filter(pk=turn.pk).update(audio="a.ogg")
        Turn.objects.filter(pk=turn.pk).update(audio="b.ogg")
        assert read_outbox() == []

        Turn.objects.filter(pk=turn.pk).update(audio="", audio_bytes=0)

        assert [change["audio"] for change in read_changes("conversations_turn")] == [""]

    def test_of_audio_are_not_those_of_files_that_were_lost(self, alice: User, media_root: Path) -> None:
        """A restore may bring them back."""
        turns = [factories.create_turn(factories.create_conversation(alice), audio=FLAC) for _ in range(2)]
        (media_root / turns[0].audio_name).unlink()

        orphans.remove_orphans(now=timezone.now())

        turns[0].refresh_from_db()
        assert (turns[0].audio_name, turns[0].audio_bytes) == ("", 0)
        assert read_outbox() == []

    def test_of_a_conversation_are_not_its_first_title(self, alice: User) -> None:
        conversation = factories.create_conversation(alice)
        factories.create_turn(conversation, text="first")
        assert read_outbox() == []

        conversation.refresh_from_db()
        conversations.change_conversation(conversation=conversation, title="other", is_pinned=True)

        title, pin = read_changes("conversations_conversation")
        assert title == {"title": "other"}
        assert pin["is_pinned"] in (1, True)

    def test_of_a_retention_are_its_choice_as_well(self, alice: User) -> None:
        conversations.choose_retention(user=alice, audio_days=30, text_days=None)
        conversations.choose_retention(user=alice, audio_days=7, text_days=None)
        conversations.choose_retention(user=alice, audio_days=7, text_days=None)

        assert [change["audio_days"] for change in read_changes("conversations_retentionchoice")] == [30, 7]
        assert RetentionChoice.objects.get().audio_days == 7

    def test_hold_text_of_any_kind(self, alice: User) -> None:
        turn = factories.create_turn(factories.create_conversation(alice))
        text = "'\"\\\n\t你好 🙂 {}%s"

        conversations.correct_turn(conversation_id=turn.conversation_id, turn_id=turn.pk, text=text, supersede=False)

        assert read_changes("conversations_turn")[0]["text"] == text


def turn_conversation(turn: Turn) -> str:
    return turn.conversation_id.hex if connection.vendor == "sqlite" else str(turn.conversation_id)


class TestInstall:
    def test_has_nothing_to_do_after_the_migrations(self) -> None:
        assert triggers.install() == []

    def test_names_columns_that_there_are(self) -> None:
        columns = {
            (model._meta.db_table, field.column)
            for model in apps.get_models(include_auto_created=True)
            for field in model._meta.concrete_fields
        }

        assert set(triggers.list_columns()) - columns == set()

    def test_replaces_what_is_missing_or_outdated(self) -> None:
        triggers.remove()
        assert triggers.install()
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                cursor.execute("DROP TRIGGER tombstone_auth_user_deleted")
                cursor.execute("DROP TRIGGER tombstone_voices_preview_deleted")
                cursor.execute(
                    "CREATE TRIGGER tombstone_voices_preview_deleted AFTER DELETE ON voices_preview BEGIN SELECT 1; END"
                )
                cursor.execute("CREATE TRIGGER tombstone_old AFTER DELETE ON voices_preview BEGIN SELECT 1; END")
                expected = ["tombstone_auth_user_deleted", "tombstone_old", "tombstone_voices_preview_deleted"]
            else:
                empty = "() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$"
                cursor.execute("DROP TRIGGER tombstone_auth_user ON auth_user")
                cursor.execute(f"CREATE OR REPLACE FUNCTION tombstone_voices_preview{empty}")
                cursor.execute(f"CREATE FUNCTION tombstone_old{empty}")
                cursor.execute("ALTER TABLE voices_recording DISABLE TRIGGER tombstone_voices_recording")
                expected = [
                    "tombstone_auth_user",
                    "tombstone_old",
                    "tombstone_voices_preview",
                    "tombstone_voices_recording",
                ]

        assert triggers.install() == expected
        assert triggers.install() == []

    def test_leaves_other_triggers_alone(self, alice: User) -> None:
        """Those of the search index."""
        triggers.remove()

        factories.create_turn(factories.create_conversation(alice), text="hello")

        assert Conversation.objects.matching("hello", owner=alice).count() == 1
        assert read_outbox() == []


@pytest.mark.django_db(transaction=True)
class TestMigrations:
    def test_that_remake_watched_tables_keep_them_watched(self, alice: User) -> None:
        turn = factories.create_turn(factories.create_conversation(alice))

        # They remake tables, and alter and drop columns that the triggers name.
        executor = MigrationExecutor(connection)
        executor.migrate([("voices", "0009_no_recording_without_consent"), ("conversations", "0006_voices_of_turns")])
        call_command("migrate", verbosity=0)

        assert triggers.install() == []
        with transaction.atomic():
            TurnSearch.objects.all().delete()
            Turn.objects.filter(pk=turn.pk).delete()
            assert read_deletions("conversations_turn") == {str(turn.pk)}

    def test_run_without_triggers(self, alice: User) -> None:
        """A trigger that names the outbox would keep SQLite from remaking it; and migrations run again on a copy."""
        before = Tombstone._meta.get_field("key")
        after = models.CharField(max_length=64, null=True)
        after.set_attributes_from_name("key")
        after.model = Tombstone

        plan = [(Migration("0002_key", "operations"), False)]
        emit_pre_migrate_signal(verbosity=0, interactive=False, db="default", apps=apps, plan=plan)
        User.objects.update(is_staff=True)
        with connection.schema_editor() as editor:
            editor.alter_field(Tombstone, before, after)
        with connection.schema_editor() as editor:
            editor.alter_field(Tombstone, after, before)
        emit_post_migrate_signal(verbosity=0, interactive=False, db="default")

        assert triggers.install() == []
        assert read_outbox() == []
        with transaction.atomic():
            User.objects.update(is_staff=False)
            assert len(read_changes("auth_user")) == 1

    def test_that_are_not_there_leave_the_triggers(self) -> None:
        emit_pre_migrate_signal(verbosity=0, interactive=False, db="default", plan=[])

        assert triggers.install() == []
