import json
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from avatar_site.operations.child_logs import ChildLogs, LogLimits, make_plain

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
LINE = '{"timestamp": "2026-11-27T12:00:00Z", "level": "info", "event": "generated", "logger": "inference"}'


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now.timestamp()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def failures() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def make_logs(tmp_path: Path, clock: Clock, failures: list[tuple[str, str]]) -> Callable[..., ChildLogs]:
    def make(**limits: int) -> ChildLogs:
        return ChildLogs(
            tmp_path / "logs",
            on_failure=lambda name, reason: failures.append((name, reason)),
            limits=LogLimits(**limits),
            read_time=clock,
        )

    return make


def read(tmp_path: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "logs" / name).read_text(encoding="utf-8").splitlines()]


def list_names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "logs").iterdir())


def make_older(tmp_path: Path, at: datetime) -> None:
    """Let every file have been written then: the disk's clock is not ours."""
    for path in (tmp_path / "logs").iterdir():
        if path.suffix == ".log":
            os.utime(path, (at.timestamp(), at.timestamp()))


class TestChildLogs:
    def test_keeps_a_line_of_ours_as_it_is(self, tmp_path: Path, make_logs: Callable[..., ChildLogs]) -> None:
        make_logs().write_line("web", LINE)

        assert (tmp_path / "logs" / "web.log").read_text() == LINE + "\n"

    @pytest.mark.parametrize(
        "text", ["Traceback (most recent call last):", "{curly", '{"key": "你好"}', '{"event": 1}']
    )
    def test_wraps_any_other_line(self, tmp_path: Path, make_logs: Callable[..., ChildLogs], text: str) -> None:
        make_logs().write_line("web", text)

        assert read(tmp_path, "web.log") == [
            {"timestamp": "2026-11-27T12:00:00.000Z", "level": "info", "event": text, "logger": "web"}
        ]

    def test_copies_errors_of_all_into_one_file(self, tmp_path: Path, make_logs: Callable[..., ChildLogs]) -> None:
        logs = make_logs()

        for name, level in (("web", "info"), ("web", "ERROR"), ("worker", "warning"), ("inference", "critical")):
            logs.write_line(name, json.dumps({"level": level, "event": f"of {name}"}))

        assert [line["event"] for line in read(tmp_path, "error.log")] == ["of web", "of inference"]
        assert len(read(tmp_path, "web.log")) == 2

    def test_shows_the_files_to_their_owner_only(self, tmp_path: Path, make_logs: Callable[..., ChildLogs]) -> None:
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs" / "web.log").touch(mode=0o644)
        logs = make_logs()

        logs.write_line("web", '{"level": "error", "event": "e"}')
        logs.write_event("info", "child started", {"name": "web"})

        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "logs").iterdir()}
        assert modes == {"web.log": 0o600, "error.log": 0o600, "supervisor.log": 0o600}


class TestRotation:
    def test_begins_a_file_when_one_is_full(self, tmp_path: Path, make_logs: Callable[..., ChildLogs]) -> None:
        logs = make_logs(file_bytes=1000)

        for number in range(50):
            logs.write_line("web", f"line {number}")

        paths = list((tmp_path / "logs").iterdir())
        assert len(paths) > 3
        assert all(path.stat().st_size <= 1000 for path in paths)
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in paths)
        lines = [line["event"] for path in paths for line in read(tmp_path, path.name)]
        assert sorted(lines) == sorted(f"line {number}" for number in range(50))

    def test_begins_all_files_each_day(self, tmp_path: Path, make_logs: Callable[..., ChildLogs], clock: Clock) -> None:
        logs = make_logs()
        logs.write_line("web", LINE)
        logs.write_line("beat", LINE)
        make_older(tmp_path, clock.now)

        clock.now += timedelta(days=1)
        logs.write_line("web", LINE)

        assert list_names(tmp_path) == ["beat.log.2026-11-27.1", "web.log", "web.log.2026-11-27.1"]

    def test_sets_the_files_of_an_earlier_supervisor_aside(
        self, tmp_path: Path, make_logs: Callable[..., ChildLogs], clock: Clock
    ) -> None:
        make_logs().write_line("web", LINE)
        make_older(tmp_path, clock.now - timedelta(days=1))

        make_logs().write_line("web", LINE)

        assert list_names(tmp_path) == ["web.log", "web.log.2026-11-26.1"]

    def test_removes_files_after_a_week(
        self, tmp_path: Path, make_logs: Callable[..., ChildLogs], clock: Clock
    ) -> None:
        logs = make_logs(kept_days=7)
        for _ in range(10):
            logs.write_line("web", LINE)
            make_older(tmp_path, clock.now)
            clock.now += timedelta(days=1)

        logs.write_line("web", LINE)

        days = ("11-30", *(f"12-0{day}" for day in range(1, 7)))
        assert list_names(tmp_path) == ["web.log", *(f"web.log.2026-{day}.1" for day in days)]

    def test_bounds_the_folder(self, tmp_path: Path, make_logs: Callable[..., ChildLogs]) -> None:
        logs = make_logs(file_bytes=1000, total_bytes=5000)

        for number in range(200):
            logs.write_line("web", f"line {number}")

        paths = list((tmp_path / "logs").iterdir())
        assert sum(path.stat().st_size for path in paths) <= 6000  # the file that is written to comes on top
        assert read(tmp_path, "web.log")[-1]["event"] == "line 199"

    def test_leaves_what_is_not_ours(self, tmp_path: Path, make_logs: Callable[..., ChildLogs]) -> None:
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs" / "notes.txt").write_text("mine")
        os.utime(tmp_path / "logs" / "notes.txt", (0, 0))

        make_logs(total_bytes=1).write_line("web", LINE)

        assert "notes.txt" in list_names(tmp_path)


class TestFailures:
    def test_reports_once_until_a_line_can_be_written_again(
        self, tmp_path: Path, make_logs: Callable[..., ChildLogs], failures: list[tuple[str, str]]
    ) -> None:
        (tmp_path / "logs").mkdir()
        log = tmp_path / "logs" / "web.log"
        log.symlink_to("/dev/full")
        logs = make_logs()
        mode = Path("/dev/full").stat().st_mode

        for _ in range(3):
            logs.write_line("web", LINE)

        assert failures == [("web", "No space left on device")]
        assert Path("/dev/full").stat().st_mode == mode

    def test_begins_a_new_line_after_one_that_fitted_in_part(
        self, tmp_path: Path, make_logs: Callable[..., ChildLogs], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        logs = make_logs()
        write = os.write
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda fd, data: write(fd, data[:10]))
            logs.write_line("web", LINE)

        logs.write_line("web", LINE)

        assert (tmp_path / "logs" / "web.log").read_text().splitlines() == [LINE[:10], LINE]


class TestMakePlain:
    def test_shows_time_level_logger_and_event(self) -> None:
        assert make_plain(LINE) == "12:00:00 info    inference: generated"

    def test_shows_a_traceback_as_lines(self) -> None:
        assert make_plain('{"level": "error", "event": "failed", "exception": "a\\nb"}') == ("error   : failed\na\nb")

    def test_leaves_other_lines(self) -> None:
        assert make_plain("你好") == "你好"
