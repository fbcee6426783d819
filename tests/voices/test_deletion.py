"""A deleted voice leaves nothing: no row, no file, no page of the database."""

from __future__ import annotations

import sqlite3
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.core.files.storage import FileSystemStorage
from django.db import connection, transaction
from django.test import Client

from avatar_site.lib.problems import ProblemError
from tests import factories
from tests.fakes import FakeInference
from voices import deletion, services, tasks
from voices.build import job as build_job
from voices.models import Consent, VoiceProfile

STYLE = np.random.default_rng(5).normal(size=256).astype("<f4").tobytes()


def search_rows(needle: bytes | str) -> list[str]:
    """Return the columns in which a value occurs, whole or within another."""
    found = []
    for model in apps.get_models(include_auto_created=True):
        for row in model._default_manager.values():
            for name, value in row.items():
                haystack = bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
                wanted = needle if isinstance(needle, bytes) else needle.encode()
                if wanted in haystack or wanted.replace(b"-", b"") in haystack:
                    found.append(f"{model.__name__}.{name}")
    return found


def search_files(folder: Path, needle: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and needle in path.read_bytes()]


@pytest.mark.django_db(transaction=True)
class TestDelete:
    def test_leaves_nothing_in_rows_files_or_the_pages_of_the_database(
        self, alice: User, inference: FakeInference, media_root: Path
    ) -> None:
        # Complete: recordings, clip, embedding, style, previews, preference, turns.
        profile = factories.upload_voice(alice, name="Zanzibar-voice")
        services.add_recording(
            profile=profile,
            audio=factories.sounds.encode(factories.sounds.make_speech(7.0), "mp3"),
            attestation="own_voice",
        )
        build_job.build(voice_profile_id=profile.pk, inference=inference)
        VoiceProfile.objects.filter(pk=profile.pk).update(style=STYLE, fitting_similarity=0.7)
        factories.set_job(profile, "fit", state="done")
        profile.refresh_from_db()
        embedding = bytes(profile.embedding)
        services.preview(profile=profile, user=alice, text="你好")
        services.choose_default(user=alice, profile=profile)
        turn = factories.create_turn(
            factories.create_conversation(alice),
            speaker="avatar",
            text="很高興認識你。",
            audio=factories.make_flac(),
            voice_profile_id=profile.pk,
            quality="fast",
        )
        folder = media_root / "voices" / str(alice.pk)
        assert len([path for path in folder.rglob("*") if path.is_file()]) == 4
        # The search works.
        database = Path(str(connection.settings_dict["NAME"])).parent
        assert search_files(database, embedding)
        assert set(search_rows("Zanzibar-voice")) == {"VoiceProfile.name", "Turn.voice_name"}

        services.delete_voice_profile(profile=profile)

        assert not folder.exists()
        assert search_rows("Zanzibar-voice") == []
        assert search_rows(str(profile.pk)) == []
        for secret in (embedding, STYLE, b"Zanzibar-voice", profile.clip_transcript.encode()):
            assert search_files(media_root, secret) == []
            assert search_files(database, secret) == []
        assert not Consent.objects.exists()
        # The turn keeps its text and audio, and says that the voice is deleted.
        turn.refresh_from_db()
        assert (turn.text, turn.voice_profile, turn.voice_was_deleted) == ("很高興認識你。", None, True)
        assert turn.audio.storage.exists(turn.audio.name)

    def test_of_the_person_leaves_nothing_either(
        self, alice: User, bob: User, operators_client: Client, inference: FakeInference, media_root: Path
    ) -> None:
        profile = factories.upload_voice(alice, name="Zanzibar-voice")
        build_job.build(voice_profile_id=profile.pk, inference=inference)
        shared = factories.create_voice_profile(owner=bob, is_shared=True)
        services.preview(profile=shared, user=alice, text="你好")
        factories.create_turn(factories.create_conversation(alice), text="Zanzibar", audio=factories.make_flac())
        kept = factories.create_turn(factories.create_conversation(bob), audio=factories.make_flac())
        assert len([path for path in media_root.rglob("*") if path.is_file()]) == 5

        answer = operators_client.post(f"/admin/auth/user/{alice.pk}/delete/", {"post": "yes"})

        assert (answer.status_code, answer.url) == (302, "/admin/auth/user/")
        assert [path.name for path in media_root.rglob("*") if path.is_file()] == [Path(kept.audio_name).name]
        assert search_rows("Zanzibar") == []

    def test_of_the_person_is_over_though_the_storage_fails(self, alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
        factories.upload_voice(alice)
        factories.create_turn(factories.create_conversation(alice), audio=factories.make_flac())
        after: list[str] = []

        def fail(*args: object) -> None:
            raise OSError("down")

        monkeypatch.setattr(FileSystemStorage, "delete", fail)
        monkeypatch.setattr("conversations.signals.remove_files", fail)
        with transaction.atomic():
            alice.delete()
            transaction.on_commit(lambda: after.append("done"))

        assert not User.objects.filter(username="alice").exists()
        assert after == ["done"]

    def test_of_a_person_that_is_taken_back_leaves_the_files(self, alice: User, media_root: Path) -> None:
        factories.upload_voice(alice)

        with transaction.atomic():
            alice.delete()
            transaction.set_rollback(True)

        assert len([path for path in media_root.rglob("*") if path.is_file()]) == 1

    def test_can_be_tried_again_when_the_storage_fails(
        self, alice: User, monkeypatch: pytest.MonkeyPatch, media_root: Path
    ) -> None:
        profile = factories.upload_voice(alice)
        delete = FileSystemStorage.delete
        monkeypatch.setattr(FileSystemStorage, "delete", lambda *args: (_ for _ in ()).throw(OSError("down")))

        with pytest.raises(ProblemError, match="deletion_unfinished"):
            services.delete_voice_profile(profile=profile)
        assert VoiceProfile.objects.get(pk=profile.pk).state == "deleting"
        assert deletion.finish_all() == 0

        monkeypatch.setattr(FileSystemStorage, "delete", delete)
        services.delete_voice_profile(profile=profile)
        assert not VoiceProfile.objects.filter(pk=profile.pk).exists()

    def test_is_finished_by_beat_and_cannot_be_undone(
        self, alice: User, alices_client: Client, monkeypatch: pytest.MonkeyPatch, media_root: Path
    ) -> None:
        profile = factories.upload_voice(alice)
        address = f"/api/voice-profiles/{profile.pk}"
        with monkeypatch.context() as patched:
            patched.setattr(FileSystemStorage, "delete", lambda *args: (_ for _ in ()).throw(OSError("down")))
            answer = alices_client.delete(address)
        assert (answer.status_code, answer.json()["code"]) == (503, "deletion_unfinished")

        profile.refresh_from_db()
        for change in (services.enable, services.disable):
            change(profile=profile)
        with pytest.raises(ProblemError, match="deleting"):
            services.rebuild(profile=profile)
        assert alices_client.post(f"{address}/retry").json()["code"] == "deleting"
        assert alices_client.get(f"{address}/status").json()["state"] == "deleting"
        tasks.finish_deletions()

        assert not VoiceProfile.objects.filter(pk=profile.pk).exists()
        assert not Consent.objects.exists()
        assert [path for path in media_root.rglob("*") if path.is_file()] == []


def test_sqlite_overwrites_what_is_deleted(tmp_path: Path) -> None:
    # 0 in a library that was built without it.
    options: dict[str, Any] = connection.settings_dict["OPTIONS"]
    database = sqlite3.connect(tmp_path / f"{uuid.uuid4()}.sqlite3")
    database.executescript(options["init_command"])

    assert database.execute("PRAGMA secure_delete").fetchone() == (1,)
    database.close()
