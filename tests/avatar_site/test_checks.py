import os
from pathlib import Path

import pyrage
import pytest
from pytest_django import Settings

from avatar_site import checks


def ids(messages: list) -> list[str]:
    return [message.id for message in messages]


class TestDataDir:
    def test_may_be_made_later(self, settings: Settings, tmp_path: Path) -> None:
        settings.AVATAR_DATA_DIR = tmp_path / "not" / "yet"

        assert checks.check_data_dir(None) == []

    def test_must_be_a_folder(self, settings: Settings, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        settings.AVATAR_DATA_DIR = tmp_path / "file" / "data"

        assert ids(checks.check_data_dir(None)) == ["avatar.E001"]

    def test_must_be_writable(self, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        settings.AVATAR_DATA_DIR = tmp_path
        # Root may write anywhere, whatever a folder's mode says.
        monkeypatch.setattr(os, "access", lambda path, mode: False)

        assert ids(checks.check_data_dir(None)) == ["avatar.E001"]


class TestSystemPrompt:
    @pytest.mark.parametrize(("length", "expected"), [(2000, []), (2001, ["avatar.E002"])])
    def test_leaves_room_for_the_conversation(self, settings: Settings, length: int, expected: list[str]) -> None:
        settings.AVATAR_SYSTEM_PROMPT = "說" * length

        assert ids(checks.check_system_prompt_fits(None)) == expected


class TestSessions:
    @pytest.mark.parametrize(("sessions", "calls", "expected"), [(8, 8, []), (9, 8, ["avatar.E003"])])
    def test_are_no_more_than_the_engines_take(
        self, settings: Settings, sessions: int, calls: int, expected: list[str]
    ) -> None:
        settings.AVATAR_MAX_SESSIONS, settings.AVATAR_INFERENCE_MAX_CALLS = sessions, calls

        assert ids(checks.check_every_session_has_engines(None)) == expected


class TestMicrophone:
    @pytest.mark.parametrize(
        ("host", "https", "expected"),
        [
            ("127.0.0.1", False, []),
            ("localhost", False, []),
            ("::1", False, []),
            ("0.0.0.0", True, []),
            ("0.0.0.0", False, ["avatar.W001"]),
            ("talk.example.tw", False, ["avatar.W001"]),
        ],
    )
    def test_needs_https_for_other_machines(
        self, settings: Settings, host: str, https: bool, expected: list[str]
    ) -> None:
        settings.AVATAR_HOST, settings.AVATAR_HTTPS = host, https

        assert ids(checks.check_microphone_works(None)) == expected


class TestBackupRetention:
    @pytest.mark.parametrize(
        ("audio_days", "text_days", "expected"),
        [
            # The site keeps everything: backups keep nothing for longer.
            (0, 0, []),
            (30, 7, []),
            (29, 7, ["avatar.W002"]),
            (1, 1, ["avatar.W002", "avatar.W002"]),
        ],
    )
    def test_should_not_be_longer_than_the_sites(
        self, settings: Settings, audio_days: int, text_days: int, expected: list[str]
    ) -> None:
        settings.AVATAR_BACKUP_AUDIO_DAYS, settings.AVATAR_BACKUP_DATABASE_DAYS = 30, 7
        settings.AVATAR_RETENTION_AUDIO_DAYS, settings.AVATAR_RETENTION_TEXT_DAYS = audio_days, text_days

        assert ids(checks.check_backup_retention(None)) == expected

    def test_names_both_settings(self, settings: Settings) -> None:
        settings.AVATAR_BACKUP_AUDIO_DAYS, settings.AVATAR_RETENTION_AUDIO_DAYS = 30, 7

        (warning,) = checks.check_backup_retention(None)

        assert "AVATAR_BACKUP_AUDIO_DAYS=30" in warning.msg
        assert "AVATAR_RETENTION_AUDIO_DAYS=7" in warning.msg


class TestBackupRecipients:
    def test_may_be_none(self, settings: Settings) -> None:
        settings.AVATAR_BACKUP_RECIPIENTS = []

        assert checks.check_backup_recipients(None) == []

    def test_are_public_keys(self, settings: Settings) -> None:
        settings.AVATAR_BACKUP_RECIPIENTS = [str(pyrage.x25519.Identity.generate().to_public())]

        assert checks.check_backup_recipients(None) == []

    @pytest.mark.parametrize("is_private", [True, False])
    def test_are_named_when_they_are_none(self, settings: Settings, is_private: bool) -> None:
        key = str(pyrage.x25519.Identity.generate()) if is_private else "age1nothing"
        settings.AVATAR_BACKUP_RECIPIENTS = [key]

        (error,) = checks.check_backup_recipients(None)

        assert error.id == "avatar.E004"
        assert error.msg.startswith("AVATAR_BACKUP_RECIPIENTS: ")
        # A private key in the wrong place must not get into logs as well.
        assert not is_private or key not in error.msg


class TestBackupTarget:
    @pytest.mark.parametrize(
        ("target", "expected"),
        [("s3://backups/avatar", []), ("s3://b", ["avatar.E005"]), ("ftp://host/folder", ["avatar.E005"])],
    )
    def test_is_a_folder_or_a_bucket(self, settings: Settings, target: str, expected: list[str]) -> None:
        settings.AVATAR_BACKUP_TARGET = target

        assert ids(checks.check_backup_target(None)) == expected

    def test_may_be_the_default(self, settings: Settings, tmp_path: Path) -> None:
        settings.AVATAR_DATA_DIR, settings.AVATAR_BACKUP_TARGET = tmp_path, str(tmp_path / "backups")
        # The site serves without; `serve --prepare --without-backup` can still migrate.
        (tmp_path / "backups").write_text("no folder")

        assert checks.check_backup_target(None) == []

    def test_is_not_among_the_data(self, settings: Settings, tmp_path: Path) -> None:
        settings.AVATAR_DATA_DIR, settings.AVATAR_BACKUP_TARGET = tmp_path, str(tmp_path / "media" / "backups")

        assert ids(checks.check_backup_target(None)) == ["avatar.E005"]


class TestBackupIdentity:
    @pytest.mark.parametrize(("mode", "expected"), [(0o600, []), (0o640, ["avatar.W004"]), (0o604, ["avatar.W004"])])
    def test_is_for_its_owner_alone(self, settings: Settings, tmp_path: Path, mode: int, expected: list[str]) -> None:
        path = tmp_path / "key.txt"
        path.write_text(f"{pyrage.x25519.Identity.generate()}\n")
        path.chmod(mode)
        settings.AVATAR_BACKUP_IDENTITY_FILE = str(path)

        assert ids(checks.check_backup_identity(None)) == expected

    def test_that_cannot_be_read_is_warned_of(self, settings: Settings, tmp_path: Path) -> None:
        settings.AVATAR_BACKUP_IDENTITY_FILE = str(tmp_path / "on-a-disk-that-is-away.txt")

        (warning,) = checks.check_backup_identity(None)

        assert warning.id == "avatar.W003"
        assert "on-a-disk-that-is-away.txt" in warning.msg

    def test_may_be_kept_elsewhere(self, settings: Settings) -> None:
        settings.AVATAR_BACKUP_IDENTITY_FILE = ""

        assert checks.check_backup_identity(None) == []
