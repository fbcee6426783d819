from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from avatar_site.operations.tombstones import triggers


def migrate(name: str) -> MigrationExecutor:
    # As the command does: they name columns of now.
    triggers.remove()
    executor = MigrationExecutor(connection)
    executor.migrate([("voices", name)])
    return MigrationExecutor(connection)


@pytest.fixture
def newest(transactional_db: None) -> Iterator[str]:
    """The name of the newest migration, to which the database is migrated afterwards."""
    names = [name for app, name in MigrationExecutor(connection).loader.graph.leaf_nodes() if app == "voices"]
    # As the command does, whose signals an executor does not send.
    triggers.remove()
    yield names[0]
    # Other apps too: their migrations that depend on ours were unapplied with them.
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes())
    triggers.install()


class TestConsentOfRecordings:
    def test_of_old_ones_is_that_of_their_voice(self, newest: str, alice: User) -> None:
        apps = migrate("0005_promises").loader.project_state([("voices", "0005_promises")]).apps
        recordings = []
        for text in ("mine", "theirs"):
            consent = apps.get_model("voices", "Consent").objects.create(
                given_by_id=alice.pk, attestation="own_voice", text=text, text_sha256=text
            )
            profile = apps.get_model("voices", "VoiceProfile").objects.create(
                owner_id=alice.pk, consent=consent, name=text, language="zh", state="failed", version=1
            )
            recordings.append(
                apps.get_model("voices", "Recording").objects.create(
                    profile=profile, audio=text, size_bytes=1, duration_s=6, speech_s=5, snr_db=30, clipped_share=0
                )
            )

        executor = migrate(newest)

        now = executor.loader.project_state([("voices", newest)]).apps.get_model("voices", "Recording").objects
        for recording, text in zip(recordings, ("mine", "theirs"), strict=True):
            assert now.get(pk=recording.pk).consent.text == text
            assert now.get(pk=recording.pk).profile.jobs.get().state == "failed"


NOW = datetime(2026, 11, 26, 9, 30, tzinfo=UTC)
TOKEN = uuid.UUID(int=7)
BUILT: dict[str, Any] = {"version": 1, "engine_voice": "zf_xiaoxiao", "step": "matching", "progress": 1.0}
#: A voice before, and what is expected of it after: availability, build job, fit job.
VOICES: dict[str, tuple[dict[str, Any], str, dict[str, Any], dict[str, Any] | None]] = {
    "waits": (
        {"state": "pending", "claimed_at": NOW},
        "available",
        {"state": "queued", "step": "queued", "claimed_at": NOW, "token": None},
        None,
    ),
    "is built": (
        {"state": "extracting", "step": "clip", "progress": 0.5, "claim": TOKEN, "claimed_at": NOW, "attempts": 2},
        "available",
        {"state": "running", "step": "clip", "progress": 0.5, "token": TOKEN, "claimed_at": NOW, "attempts": 2},
        None,
    ),
    "failed": (
        {"state": "failed", "error_code": "no_speech", "claimed_at": NOW, "is_outdated": True},
        "available",
        {"state": "failed", "error": "no_speech", "claimed_at": NOW},
        None,
    ),
    "is fitted": (
        BUILT
        | {"state": "ready", "fitting_state": "running", "fitting_progress": 0.3}
        | {"fitting_claim": TOKEN, "fitting_claimed_at": NOW},
        "available",
        {"state": "done", "step": "matching", "progress": 1.0},
        {"state": "running", "progress": 0.3, "token": TOKEN, "claimed_at": NOW, "step": ""},
    ),
    "was fitted": (
        BUILT | {"state": "ready", "fitting_state": "done", "fitting_progress": 1.0, "fitting_similarity": 0.8},
        "available",
        {"state": "done"},
        {"state": "done", "progress": 1.0},
    ),
    "waits to be fitted": (
        BUILT | {"state": "ready", "fitting_state": "queued", "fitting_claimed_at": NOW},
        "available",
        {"state": "done"},
        {"state": "queued", "claimed_at": NOW, "token": None},
    ),
    "is disabled": (BUILT | {"state": "disabled", "is_outdated": False}, "disabled", {"state": "done"}, None),
    "is disabled and outdated": (
        BUILT | {"state": "disabled", "is_outdated": True},
        "disabled",
        {"state": "cancelled"},
        None,
    ),
    "is being deleted": (
        BUILT | {"state": "deleting", "is_outdated": False, "fitting_state": "cancelled"},
        "deleting",
        {"state": "done"},
        {"state": "cancelled"},
    ),
}


class TestJobsOfVoices:
    def test_are_what_their_columns_were_and_can_be_columns_again(self, newest: str, alice: User) -> None:
        before = migrate("0010_one_running_fit").loader.project_state([("voices", "0010_one_running_fit")]).apps
        for name, (columns, *_) in VOICES.items():
            consent = before.get_model("voices", "Consent").objects.create(
                given_by_id=alice.pk, attestation="own_voice", text=name, text_sha256=name
            )
            before.get_model("voices", "VoiceProfile").objects.create(
                owner_id=alice.pk, consent=consent, name=name, language="zh", kind="matched", **columns
            )
        stock = before.get_model("voices", "VoiceProfile").objects.filter(owner=None)
        stock.filter(engine_voice="af_heart").update(state="disabled")

        voices = migrate(newest).loader.project_state([("voices", newest)]).apps.get_model("voices", "VoiceProfile")

        for name, (_, availability, build, fit) in VOICES.items():
            voice = voices.objects.get(name=name)
            assert voice.availability == availability, name
            for kind, expected in (("build", build), ("fit", fit)):
                job = voice.jobs.filter(kind=kind).values().first()
                assert (job and job | expected) == job if expected else job is None, (name, kind, job)
        assert not voices.objects.filter(owner=None, jobs__isnull=False).exists()
        assert voices.objects.get(owner=None, availability="disabled").engine_voice == "af_heart"

        again = migrate("0010_one_running_fit").loader.project_state([("voices", "0010_one_running_fit")]).apps
        for name, (columns, *_) in VOICES.items():
            row = again.get_model("voices", "VoiceProfile").objects.filter(name=name).values().get()
            assert {column: row[column] for column in columns} == columns, name
        states = again.get_model("voices", "VoiceProfile").objects.filter(owner=None).values_list("state", flat=True)
        assert sorted(set(states)) == ["disabled", "ready"]
