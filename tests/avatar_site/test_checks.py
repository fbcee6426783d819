import os
from pathlib import Path

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
