import json
from pathlib import Path

import pytest

from avatar_site.operations.heartbeats import HangPolicy, Heartbeat
from avatar_site.operations.serve_state import (
    FILE_NAME,
    ChildState,
    Histories,
    ServeState,
    StateFile,
    describe_child,
    read_state,
)


def make_state(**changes: object) -> ServeState:
    values: dict[str, object] = {"address": "http://127.0.0.1:8000", "supervisor_pid": 10, "written_at": 5.0}
    return ServeState(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def failures() -> list[str]:
    return []


@pytest.fixture
def file(tmp_path: Path, failures: list[str]) -> StateFile:
    return StateFile(tmp_path, on_failure=failures.append)


class TestStateFile:
    def test_is_read_as_it_was_written(self, file: StateFile, tmp_path: Path) -> None:
        child = ChildState("web", 11, 1.0, last_answer_at=4.0, missed=1, restarts=(1.0,), last_problem="", ready_at=2.0)

        file.write(make_state(children=(child, ChildState("beat", None, None))))

        assert read_state(tmp_path) == make_state(children=(child, ChildState("beat", None, None)))

    def test_reports_a_full_disk_once_until_there_is_room(
        self, file: StateFile, failures: list[str], tmp_path: Path
    ) -> None:
        draft = tmp_path / FILE_NAME.replace("json", "new")
        draft.symlink_to("/dev/full")

        file.write(make_state())
        file.write(make_state())
        draft.unlink()
        file.write(make_state())
        draft.symlink_to("/dev/full")
        file.write(make_state())

        assert failures == [f"{tmp_path / FILE_NAME} cannot be written: No space left on device"] * 2

    def test_keeps_the_last_state_on_a_full_disk(self, file: StateFile, tmp_path: Path) -> None:
        file.write(make_state(written_at=1.0))
        (tmp_path / "serve.new").symlink_to("/dev/full")

        file.write(make_state(written_at=2.0))

        state = read_state(tmp_path)
        assert state is not None
        assert state.written_at == 1.0

    def test_is_gone_at_the_end(self, file: StateFile, tmp_path: Path) -> None:
        file.write(make_state())

        file.remove()
        file.remove()

        assert read_state(tmp_path) is None

    @pytest.mark.parametrize("text", ["", "[]", "{}", "{", json.dumps({"address": "", "pids": {}})])
    def test_is_nothing_when_it_cannot_be_read(self, text: str, tmp_path: Path) -> None:
        (tmp_path / FILE_NAME).write_text(text)

        assert read_state(tmp_path) is None


class TestServeState:
    def test_lists_the_processes_that_run(self) -> None:
        state = make_state(children=(ChildState("web", 11, 1.0), ChildState("beat", None, None)))

        assert state.pids == {"supervisor": 10, "web": 11}


class TestDescribeChild:
    @pytest.mark.parametrize(
        ("child", "expected"),
        [
            (ChildState("web", 1, 5.0, ready_at=6.0), ""),
            (ChildState("web", None, None), "  web: does not run"),
            (ChildState("inference", 1, 70.0), "  inference: starts, for 30 s"),
            (
                ChildState("beat", 1, 5.0, missed=2, restarts=(50.0, 90.0), last_problem="hung", ready_at=6.0),
                "  beat: missed 2 heartbeats; restarted 2 times within the hour, last: hung",
            ),
        ],
    )
    def test_says_what_is_not_as_it_should_be(self, child: ChildState, expected: str) -> None:
        assert describe_child(child, 100.0) == expected


class TestHistories:
    def test_forgets_restarts_after_an_hour(self) -> None:
        histories = Histories()
        for now in (0.0, 100.0, 3000.0):
            histories.note_start("web", now)

        assert histories.describe("web", 3050.0, pid=1, heartbeat=None).restarts == (100.0, 3000.0)
        assert histories.describe("web", 3800.0, pid=1, heartbeat=None).restarts == (3000.0,)

    def test_describes_a_child_that_runs(self) -> None:
        histories = Histories()
        histories.note_start("web", 10.0)
        heartbeat = Heartbeat(HangPolicy())
        heartbeat.note_answer(12.0, is_ready=True)

        state = histories.describe("web", 20.0, pid=7, heartbeat=heartbeat)

        assert state == ChildState("web", 7, 10.0, last_answer_at=12.0, ready_at=12.0)

    def test_counts_no_misses_of_a_child_that_starts(self) -> None:
        histories = Histories()
        histories.note_start("inference", 10.0)
        heartbeat = Heartbeat(HangPolicy())
        for _ in range(5):
            heartbeat.check(lambda: None)

        assert heartbeat.missed == 4
        assert histories.describe("inference", 20.0, pid=7, heartbeat=heartbeat).missed == 0

    def test_describes_a_child_that_waits_to_be_restarted(self) -> None:
        histories = Histories()
        histories.note_start("web", 10.0)
        histories.note_problem("web", "missed 3 heartbeats")

        state = histories.describe("web", 20.0, pid=None, heartbeat=None)

        assert state == ChildState("web", None, None, last_problem="missed 3 heartbeats")
