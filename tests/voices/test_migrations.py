from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.migrations.executor import MigrationExecutor


def migrate(name: str) -> MigrationExecutor:
    executor = MigrationExecutor(connection)
    executor.migrate([("voices", name)])
    return MigrationExecutor(connection)


@pytest.fixture
def newest(transactional_db: None) -> Iterator[str]:
    """The name of the newest migration, to which the database is brought back."""
    names = [name for app, name in MigrationExecutor(connection).loader.graph.leaf_nodes() if app == "voices"]
    yield names[0]
    # All apps: going back in voices took migrations of conversations, which depend on it, back as well.
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes())


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
            assert now.get(pk=recording.pk).profile.is_outdated
