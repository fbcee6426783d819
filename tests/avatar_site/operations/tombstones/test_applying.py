"""On SQLite here, and on PostgreSQL by tests/conversations/test_postgres.py."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks

from avatar_site.operations.models import Restore, Tombstone
from avatar_site.operations.tombstones import applying, log, triggers
from avatar_site.operations.tombstones.applying import Applied, PresentKeys
from avatar_site.operations.tombstones.log import Entry
from conversations import deletion, retention
from conversations import services as conversations
from conversations.models import DELETED_VOICE, Conversation, RetentionChoice, Turn, TurnSearch
from tests import factories
from tests.files import list_files
from voices import services as voices
from voices.models import Consent, Preview, Recording, VoiceProfile

pytestmark = pytest.mark.django_db

FLAC = factories.make_flac()


class Undone:
    """What was done after the backup: its tombstones, and what the database had then."""

    entries: list[Entry]
    present: PresentKeys


@contextmanager
def undone() -> Iterator[Undone]:
    """What is done within is undone at the end, as by a restore of what was before."""
    found = Undone()
    with transaction.atomic():
        yield found
        rows = list(Tombstone.objects.order_by("pk"))
        found.entries = log.make_entries(rows, installation="0" * 16, after=0)
        found.present = applying.read_present_keys()
        transaction.set_rollback(True)


def restore(found: Undone) -> Applied:
    return applying.apply(found.entries, since=timezone.now() - dt.timedelta(minutes=5), present=None)


def add_recording(profile: VoiceProfile) -> Recording:
    consent = voices.declare_consent(user=profile.owner, attestation="own_voice")
    consent.save()
    return Recording.objects.create(
        profile=profile,
        consent=consent,
        audio=f"voices/1/{uuid.uuid4().hex}.flac",
        size_bytes=1,
        duration_s=1,
        speech_s=1,
        snr_db=1,
        clipped_share=0,
    )


def add_preview(profile: VoiceProfile, user: User) -> Preview:
    return Preview.objects.create(
        profile=profile,
        requested_by=user,
        text_sha256="0" * 64,
        voice_version=1,
        quality="fast",
        made_with="fast",
        audio=f"voices/1/{uuid.uuid4().hex}.wav",
        duration_ms=1,
    )


class TestDeletions:
    def test_of_a_voice_delete_it_with_everything_again(self, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice, name="Grandmother")
        recording = add_recording(profile)
        add_preview(profile, alice)
        turn = factories.create_turn(speaker="avatar", text="hello", voice_profile_id=profile.pk)
        of_voices = ContentType.objects.get_for_model(VoiceProfile)
        LogEntry.objects.create(
            user=alice, content_type=of_voices, object_id=str(profile.pk), object_repr="Grandmother", action_flag=CHANGE
        )
        with undone() as found:
            voices.delete_voice_profile(profile=VoiceProfile.objects.get(pk=profile.pk))
        assert VoiceProfile.objects.get(pk=profile.pk).name == "Grandmother"

        applied = restore(found)

        assert not VoiceProfile.objects.filter(owner=alice).exists()
        assert not Recording.objects.filter(pk=recording.pk).exists()
        assert not Consent.objects.exists()
        assert not Preview.objects.exists()
        turn.refresh_from_db()
        assert (turn.text, turn.voice_name, turn.voice_profile) == ("hello", DELETED_VOICE, None)
        assert LogEntry.objects.get().object_repr == str(profile.pk)
        assert applied.deleted == {"voices_voiceprofile": 1}

    def test_of_a_voice_that_had_begun_are_finished(self, alice: User) -> None:
        """The storage was away, and the crash came before it was back."""
        profile = factories.create_voice_profile(owner=alice)
        with undone() as found:
            VoiceProfile.objects.filter(pk=profile.pk).update(availability="deleting")

        restore(found)

        assert not VoiceProfile.objects.filter(pk=profile.pk).exists()

    def test_leave_stock_voices_which_come_with_a_release(self) -> None:
        count = VoiceProfile.objects.filter(owner=None).count()
        with undone() as found:
            VoiceProfile.objects.filter(owner=None).delete()

        restore(found)

        assert VoiceProfile.objects.filter(owner=None).count() == count > 0

    def test_of_a_conversation_delete_its_turns_as_well(self, alice: User) -> None:
        kept = factories.create_turn(factories.create_conversation(alice))
        turn = factories.create_turn(factories.create_conversation(alice))
        with undone() as found:
            deletion.delete_conversations(conversations=Conversation.objects.filter(pk=turn.conversation_id))
        # One that the deletion did not know of: it goes with its conversation.
        factories.create_turn(turn.conversation)

        restore(found)

        assert list(Turn.objects.all()) == [kept]
        assert list(TurnSearch.objects.values_list("turn", flat=True)) == [kept.pk]

    def test_of_a_turn_derive_the_title_anew(self, alice: User) -> None:
        conversation = factories.create_conversation(alice)
        first = factories.create_turn(conversation, text="a secret")
        factories.create_turn(conversation, text="the weather")
        with undone() as found:
            Turn.objects.filter(pk=first.pk).delete()

        restore(found)

        conversation.refresh_from_db()
        assert conversation.title == "the weather"
        assert not TurnSearch.objects.filter(text__contains="secret").exists()

    def test_of_the_last_turn_leave_the_conversation_to_the_retention(self, alice: User) -> None:
        conversation = factories.create_conversation(alice)
        turn = factories.create_turn(conversation)
        with undone() as found:
            Turn.objects.filter(pk=turn.pk).delete()

        restore(found)

        conversation.refresh_from_db()
        assert (conversation.title, conversation.last_turn_at) == ("", None)

    def test_of_the_retention_are_done_again(self, alice: User) -> None:
        old = timezone.now() - dt.timedelta(days=10)
        conversation = factories.create_conversation(alice)
        factories.create_turn(conversation, text="old", said_at=old)
        turn = factories.create_turn(conversation, text="new")
        RetentionChoice.objects.create(user=alice, text_days=5)
        with undone() as found:
            retention.purge_expired(now=timezone.now())
        RetentionChoice.objects.all().delete()

        restore(found)

        assert list(Turn.objects.all()) == [turn]

    def test_of_a_recording_have_its_voice_built_without_it(self, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice)
        kept, removed = add_recording(profile), add_recording(profile)
        with undone() as found:
            voices.remove_recording(recording=Recording.objects.get(pk=removed.pk))

        restore(found)

        assert list(profile.recordings.all()) == [kept]
        assert not Consent.objects.filter(pk=removed.consent_id).exists()
        assert VoiceProfile.objects.get(pk=profile.pk).state == "pending"

    def test_of_a_recording_of_a_disabled_voice_have_it_built_when_it_is_enabled(self, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice)
        add_recording(profile)
        removed = add_recording(profile)
        with undone() as found:
            Recording.objects.filter(pk=removed.pk).delete()
        voices.disable(profile=profile)
        restore(found)

        voices.enable(profile=profile)

        assert VoiceProfile.objects.get(pk=profile.pk).state == "pending"

    def test_of_the_only_recording_that_the_backup_has_leave_nothing_of_how_it_sounded(self, alice: User) -> None:
        profile = factories.create_voice_profile(
            owner=alice, embedding=b"1" * 1024, style=b"2", clip="voices/1/clip.flac", clip_transcript="a secret"
        )
        recording = add_recording(profile)
        with undone() as found:
            add_recording(profile)
            voices.remove_recording(recording=Recording.objects.get(pk=recording.pk))

        restore(found)

        profile = VoiceProfile.objects.get(pk=profile.pk)
        assert (bytes(profile.embedding), bytes(profile.style), profile.clip.name, profile.clip_transcript) == (
            b"",
            b"",
            "",
            "",
        )
        assert not profile.is_speakable
        assert profile.state == "failed"

    def test_of_a_preview(self, alice: User, bob: User) -> None:
        profile = factories.create_voice_profile(owner=alice)
        preview, kept = add_preview(profile, alice), add_preview(profile, bob)
        with undone() as found:
            Preview.objects.filter(pk=preview.pk).delete()

        restore(found)

        assert list(Preview.objects.all()) == [kept]

    def test_of_a_user_delete_all_that_it_had(self, alice: User, bob: User) -> None:
        factories.create_voice_profile(owner=alice)
        factories.create_turn(factories.create_conversation(alice))
        with undone() as found:
            User.objects.get(username="alice").delete()

        applied = restore(found)

        assert list(User.objects.all()) == [bob]
        assert not Turn.objects.exists()
        assert not VoiceProfile.objects.filter(owner__isnull=False).exists()
        assert applied.describe() == ["Deleted again: 1 users."]

    def test_of_a_user_who_had_another_name_in_the_backup(self, alice: User) -> None:
        with undone() as found:
            User.objects.filter(pk=alice.pk).update(username="alicia")
            User.objects.get(pk=alice.pk).delete()

        restore(found)

        assert not User.objects.exists()

    @pytest.mark.parametrize("username", ["carol", "alice"])
    def test_spare_another_user_who_has_the_id_of_one_that_was_deleted(self, alice: User, username: str) -> None:
        with undone() as found:
            later = timezone.now() + dt.timedelta(days=1)
            User.objects.filter(pk=alice.pk).update(username=username, date_joined=later)
            User.objects.get(pk=alice.pk).delete()

        assert restore(found).deleted == {}

        assert list(User.objects.all()) == [alice]

    def test_of_memberships(self, alice: User) -> None:
        staff, editors = Group.objects.create(name="staff"), Group.objects.create(name="editors")
        permission = Permission.objects.get(codename="share_voiceprofile")
        alice.groups.add(staff, editors)
        alice.user_permissions.add(permission)
        staff.permissions.add(permission)
        with undone() as found:
            alice.groups.clear()
            # Given again: the last that happened.
            alice.groups.add(editors)
            alice.user_permissions.clear()
            staff.permissions.clear()

        applied = restore(found)

        assert list(alice.groups.all()) == [editors]
        assert not alice.user_permissions.exists()
        assert not staff.permissions.exists()
        assert sum(applied.deleted.values()) == 3

    def test_of_a_group(self, alice: User) -> None:
        staff = Group.objects.create(name="staff")
        alice.groups.add(staff)
        with undone() as found:
            staff.delete()

        restore(found)

        assert not Group.objects.exists()

    def test_remove_files_once_they_are_committed(
        self, alice: User, media_root: Path, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
    ) -> None:
        conversation = factories.create_conversation(alice)
        turn, cleared = (factories.create_turn(conversation, audio=FLAC) for _ in range(2))
        kept = factories.create_turn(conversation, audio=FLAC)
        with undone() as found:
            Turn.objects.filter(pk=turn.pk).delete()
            Turn.objects.filter(pk=cleared.pk).update(audio="", audio_bytes=0)

        with django_capture_on_commit_callbacks(execute=True):
            restore(found)

        assert list_files(media_root) == [media_root / kept.audio_name]


class TestChangesWatched:
    def test_can_all_be_applied(self) -> None:
        changed = {each.table for each in triggers.WATCHED if each.changes}

        assert changed == set(applying._CHANGED)
        assert {each.table for each in triggers.WATCHED} == set(applying.NAMES)


class TestChanges:
    def test_of_a_voice_that_was_disabled_or_unshared(self, alice: User) -> None:
        disabled = factories.create_voice_profile(owner=alice)
        unshared = factories.create_voice_profile(owner=alice, is_shared=True)
        enabled = factories.create_voice_profile(owner=alice)
        with undone() as found:
            voices.disable(profile=disabled)
            voices.unshare(profile=unshared)
            voices.disable(profile=enabled)
            voices.enable(profile=enabled)

        applied = restore(found)

        for profile in (disabled, unshared, enabled):
            profile.refresh_from_db()
        assert (disabled.availability, unshared.is_shared, enabled.availability) == ("disabled", False, "available")
        assert applied.changed == {"voices_voiceprofile": 2}

    def test_of_a_voice_that_was_enabled(self, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice, availability="disabled")
        with undone() as found:
            voices.enable(profile=profile)

        restore(found)

        profile.refresh_from_db()
        assert profile.availability == "available"

    def test_of_a_turn_that_was_corrected(self, alice: User) -> None:
        conversation = factories.create_conversation(alice)
        turn = factories.create_turn(conversation, text="a secret")
        reply = factories.create_turn(conversation, speaker="avatar", text="reply")
        with undone() as found:
            for text in ("nearly right", "right"):
                conversations.correct_turn(conversation_id=conversation.pk, turn_id=turn.pk, text=text, supersede=True)
            corrected = Turn.objects.get(pk=turn.pk)

        restore(found)

        turn.refresh_from_db()
        assert (turn.text, turn.heard_text) == ("right", "a secret")
        assert turn.corrected_at == corrected.corrected_at
        reply.refresh_from_db()
        assert reply.is_superseded
        conversation.refresh_from_db()
        assert conversation.title == "right"
        found_now = Conversation.objects.matching
        assert found_now("right", owner=alice).count() == 1
        assert found_now("secret", owner=alice).count() == 0

    def test_of_a_turn_that_was_corrected_and_corrected_back(self, alice: User) -> None:
        turn = factories.create_turn(factories.create_conversation(alice), text="as heard")
        with undone() as found:
            for text in ("other", "as heard"):
                conversations.correct_turn(
                    conversation_id=turn.conversation_id, turn_id=turn.pk, text=text, supersede=False
                )

        assert restore(found).changed == {}

    def test_of_audio_that_was_removed(self, alice: User) -> None:
        turn = factories.create_turn(factories.create_conversation(alice), audio=FLAC)
        with undone() as found:
            Turn.objects.filter(pk=turn.pk).update(audio="", audio_bytes=0)

        restore(found)

        turn.refresh_from_db()
        assert (turn.audio_name, turn.audio_bytes) == ("", 0)

    def test_of_a_conversation(self, alice: User) -> None:
        conversation = factories.create_conversation(alice, title="a secret", is_pinned=True)
        with undone() as found:
            Conversation.objects.filter(pk=conversation.pk).update(title="harmless", is_pinned=False)

        restore(found)

        conversation.refresh_from_db()
        assert (conversation.title, conversation.is_pinned) == ("harmless", False)

    def test_of_what_a_user_may_do(self, alice: User, bob: User) -> None:
        User.objects.update(is_staff=True, is_superuser=True)
        with undone() as found:
            User.objects.filter(pk=alice.pk).update(is_staff=False, is_superuser=False, is_active=False)
            User.objects.filter(pk=bob.pk).update(is_active=False)
            User.objects.filter(pk=bob.pk).update(is_active=True)

        restore(found)

        alice.refresh_from_db()
        bob.refresh_from_db()
        assert (alice.is_active, alice.is_staff, alice.is_superuser) == (False, False, False)
        assert (bob.is_active, bob.is_staff) == (True, True)

    def test_of_a_user_that_were_made_in_the_admin(self, alice: User, admin_client: Client) -> None:
        """Its form rounds the time of joining."""
        staff = Group.objects.create(name="staff")
        alice.groups.add(staff)
        address = f"/admin/auth/user/{alice.pk}/change/"
        with undone() as found:
            page = admin_client.get(address)
            form = page.context["adminform"].form
            data = {name: value for name in form.fields if (value := form[name].initial) not in (None, False)}
            del data["groups"], data["is_active"]
            joined_at = timezone.localtime(alice.date_joined)
            data |= {"date_joined_0": f"{joined_at:%Y-%m-%d}", "date_joined_1": f"{joined_at:%H:%M:%S}"}
            assert admin_client.post(address, data).status_code == 302
            changed = User.objects.get(pk=alice.pk)
            assert changed.date_joined != alice.date_joined
            # Given again afterwards.
            changed.groups.add(staff)

        restore(found)

        alice.refresh_from_db()
        assert not alice.is_active
        assert list(alice.groups.all()) == [staff]
        assert applying.apply([], since=timezone.now(), present=found.present).refusal == ""

    def test_of_a_password_are_the_last_one(self, alice: User) -> None:
        with undone() as found:
            for password in ("second", "third"):
                alice.set_password(password)
                alice.save()

        restore(found)

        alice.refresh_from_db()
        assert [alice.check_password(each) for each in (factories.PASSWORD, "second", "third")] == [False, False, True]

    @pytest.mark.parametrize("had_one", [True, False])
    def test_of_a_retention(self, alice: User, had_one: bool) -> None:
        if had_one:
            RetentionChoice.objects.create(user=alice, audio_days=30)
        with undone() as found:
            conversations.choose_retention(user=alice, audio_days=7, text_days=14)

        restore(found)

        choice = RetentionChoice.objects.get()
        assert (choice.user, choice.audio_days, choice.text_days) == (alice, 7, 14)

    def test_of_rows_that_the_backup_does_not_have_are_passed_over(self, alice: User) -> None:
        with undone() as found:
            turn = factories.create_turn(factories.create_conversation(alice), text="later")
            conversations.correct_turn(
                conversation_id=turn.conversation_id, turn_id=turn.pk, text="latest", supersede=False
            )
            voices.disable(profile=factories.create_voice_profile(owner=alice))
            User.objects.filter(pk=factories.create_user("carol").pk).update(is_active=False)

        assert restore(found) == Applied()


class TestApply:
    def make(self, at: dt.datetime, key: str) -> Entry:
        return Entry(sequence=1, installation="", at=at, table="conversations_turn", key=key, is_deletion=True)

    def test_leaves_what_happened_before_the_backup(self, alice: User) -> None:
        now = timezone.now()
        conversation = factories.create_conversation(alice)
        before, around = (factories.create_turn(conversation) for _ in range(2))
        entries = [
            self.make(now - applying.MARGIN - dt.timedelta(seconds=1), str(before.pk)),
            # Committed after the snapshot, by a transaction that began before it.
            self.make(now - dt.timedelta(minutes=30), str(around.pk)),
        ]

        applying.apply(entries, since=now, present=None)

        assert list(Turn.objects.all()) == [before]

    def test_changes_nothing_more_the_second_time(self, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice)
        turn = factories.create_turn(factories.create_conversation(alice))
        factories.create_turn(turn.conversation, text="other")
        with undone() as found:
            voices.disable(profile=profile)
            conversations.correct_turn(
                conversation_id=turn.conversation_id, turn_id=turn.pk, text="right", supersede=True
            )
            User.objects.filter(pk=alice.pk).update(is_staff=True)
        assert restore(found) != Applied()

        assert restore(found) == Applied()

    def test_does_all_or_nothing(self, alice: User) -> None:
        turn = factories.create_turn(factories.create_conversation(alice))
        entries = [self.make(timezone.now(), str(turn.pk)), self.make(timezone.now(), "no key")]

        with pytest.raises(ValueError, match="badly formed"):
            applying.apply(entries, since=timezone.now(), present=None)

        assert Turn.objects.exists()

    @pytest.mark.parametrize("table", ["voices_new", "conversations_conversation", "conversations_retentionchoice"])
    def test_passes_over_what_a_newer_version_watches(self, alice: User, table: str) -> None:
        """It was shipped before a rollback."""
        conversation = factories.create_conversation(alice)
        RetentionChoice.objects.create(user=alice)
        values = {"new": 1, "user_id": alice.pk, "username": "alice"}
        entry = Entry(
            sequence=1, installation="", at=timezone.now(), table=table, key=str(conversation.pk), values=values
        )

        assert applying.apply([entry], since=timezone.now(), present=None) == Applied()

    def test_leaves_its_own_tombstones_for_when_the_copy_is_live(self, alice: User) -> None:
        turn = factories.create_turn(factories.create_conversation(alice))

        applying.apply([self.make(timezone.now(), str(turn.pk))], since=timezone.now(), present=None)

        assert Tombstone.objects.filter(table="conversations_turn").count() == 1

    @pytest.mark.django_db(transaction=True)
    def test_leaves_them_in_the_table_at_the_commit_as_well(self, alice: User, tombstones_dir: Path) -> None:
        turn = factories.create_turn(factories.create_conversation(alice))

        applying.apply([self.make(timezone.now(), str(turn.pk))], since=timezone.now(), present=None)

        assert Tombstone.objects.filter(table="conversations_turn").count() == 1
        assert not (tombstones_dir / "log.jsonl").exists()
        log.drain()
        assert str(turn.pk) in [entry.key for entry in log.read_log()]

    def test_erases_nothing_by_itself(
        self, alice: User, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
    ) -> None:
        profile = factories.create_voice_profile(owner=alice)
        with undone() as found:
            voices.delete_voice_profile(profile=profile)

        with django_capture_on_commit_callbacks() as callbacks:
            restore(found)

        assert "_erase_or_queue" not in [getattr(callback, "__name__", "") for callback in callbacks]

    def test_reads_what_it_was_sent(self, alice: User) -> None:
        with undone() as found:
            alice.delete()
            Restore.objects.create(name="20261126T120000Z-0000", restored_at=timezone.now())

        assert applying.decode_entries(applying.encode_entries(found.entries)) == found.entries
        assert applying.decode_present(applying.encode_present(found.present)) == found.present


class TestPresent:
    """What the live database says, where its tombstones were lost."""

    def apply(self, found: Undone, *, since: dt.datetime | None = None) -> Applied:
        since = since or timezone.now() - dt.timedelta(minutes=5)
        return applying.apply([], since=since, present=found.present)

    def test_has_deleted_what_it_does_not_have(self, alice: User, bob: User) -> None:
        profile = factories.create_voice_profile(owner=alice)
        turn = factories.create_turn(factories.create_conversation(alice))
        kept = factories.create_turn(turn.conversation)
        with undone() as found:
            voices.delete_voice_profile(profile=profile)
            bob.delete()
            Turn.objects.filter(pk=turn.pk).delete()
        bob = User.objects.get(username="bob")

        applied = self.apply(found)

        assert list(User.objects.all()) == [alice]
        assert not VoiceProfile.objects.filter(owner=alice).exists()
        assert list(Turn.objects.all()) == [kept]
        assert applied.describe() == [
            "Deleted, because the present database has them no more: 1 turns, 1 users, 1 voices."
        ]

    def test_has_revoked_what_it_does_not_allow(self, alice: User) -> None:
        staff = Group.objects.create(name="staff")
        permission = Permission.objects.get(codename="share_voiceprofile")
        alice.groups.add(staff)
        alice.user_permissions.add(permission)
        User.objects.filter(pk=alice.pk).update(is_staff=True, is_superuser=True)
        profile = factories.create_voice_profile(owner=alice, is_shared=True)
        with undone() as found:
            user = User.objects.get(pk=alice.pk)
            user.set_password("another")
            user.is_staff = user.is_superuser = False
            user.save()
            user.groups.clear()
            user.user_permissions.clear()
            voices.disable(profile=profile)
            voices.unshare(profile=profile)

        applied = self.apply(found)

        user = User.objects.get(pk=alice.pk)
        assert (user.is_staff, user.is_superuser, user.check_password("another")) == (False, False, True)
        assert not user.groups.exists()
        assert not user.user_permissions.exists()
        profile.refresh_from_db()
        assert (profile.availability, profile.is_shared) == ("disabled", False)
        assert applied.changed == {"auth_user": 1, "voices_voiceprofile": 1}

    def test_gives_nothing_that_the_backup_does_not_have(self, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice, availability="disabled")
        with undone() as found:
            User.objects.filter(pk=alice.pk).update(is_superuser=True)
            alice.groups.add(Group.objects.create(name="staff"))
            VoiceProfile.objects.filter(pk=profile.pk).update(availability="available", is_shared=True)

        assert self.apply(found) == Applied()

    def test_is_not_compared_without_a_user_in_common(self, alice: User) -> None:
        factories.create_turn(factories.create_conversation(alice))
        with undone() as found:
            User.objects.filter(pk=alice.pk).update(date_joined=timezone.now() + dt.timedelta(days=1))
            Turn.objects.all().delete()

        applied = self.apply(found)

        assert "no user in common" in applied.refusal
        assert Turn.objects.count() == 1

    @pytest.mark.parametrize(
        ("count", "missing", "is_refused"), [(20, 10, False), (21, 11, True), (30, 11, False), (12, 12, True)]
    )
    def test_is_not_compared_where_too_much_is_missing(
        self, alice: User, count: int, missing: int, is_refused: bool
    ) -> None:
        conversation = factories.create_conversation(alice)
        turns = [factories.create_turn(conversation) for _ in range(count)]
        with undone() as found:
            Turn.objects.filter(pk__in=[turn.pk for turn in turns[:missing]]).delete()

        applied = self.apply(found)

        assert bool(applied.refusal) is is_refused
        assert Turn.objects.count() == (count if is_refused else count - missing)
        if is_refused:
            assert applied.describe() == [
                f"The present database was not compared: {missing} of {count} turns are missing"
                " there, and no tombstone says why."
            ]

    def test_may_lack_as_much_as_tombstones_explain(self, alice: User) -> None:
        conversation = factories.create_conversation(alice)
        turns = [factories.create_turn(conversation) for _ in range(15)]
        with undone() as found:
            Turn.objects.filter(conversation=conversation).exclude(pk=turns[0].pk).delete()

        applied = applying.apply(
            [entry for entry in found.entries if entry.key != str(turns[1].pk)],
            since=timezone.now() - dt.timedelta(minutes=5),
            present=found.present,
        )

        assert (applied.refusal, applied.deleted["conversations_turn"], applied.missing["conversations_turn"]) == (
            "",
            13,
            1,
        )
        assert list(Turn.objects.all()) == [turns[0]]

    @pytest.mark.parametrize(
        ("name", "restored_at", "is_refused"),
        [
            # Someone went back too far, and now wants what was there before.
            ("20261125T120000Z-0000", dt.datetime(2026, 11, 27, tzinfo=dt.UTC), True),
            ("no name", dt.datetime(2026, 11, 27, tzinfo=dt.UTC), True),
            # The same again, or a newer one: the present database goes on from it.
            ("20261126T120000Z-0000", dt.datetime(2026, 11, 27, tzinfo=dt.UTC), False),
            ("20261126T130000Z-0000", dt.datetime(2026, 11, 27, tzinfo=dt.UTC), False),
            # Before the backup, which goes on from it.
            ("20261125T120000Z-0000", dt.datetime(2026, 11, 26, tzinfo=dt.UTC), False),
        ],
    )
    def test_is_not_compared_where_it_is_not_what_became_of_the_backup(
        self, alice: User, name: str, restored_at: dt.datetime, is_refused: bool
    ) -> None:
        turn = factories.create_turn(factories.create_conversation(alice))
        with undone() as found:
            Restore.objects.create(name=name, restored_at=restored_at)
            Turn.objects.filter(pk=turn.pk).delete()

        applied = self.apply(found, since=dt.datetime(2026, 11, 26, 12, 0, 0, 500, tzinfo=dt.UTC))

        assert bool(applied.refusal) is is_refused
        assert Turn.objects.exists() is is_refused
