import io
import json
import logging
import logging.config
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from inference.telemetry import context, logs

SECRET = "紫色的大象"


@pytest.fixture
def write() -> "Write":
    """Return a function that lets a logger write, and returns the line."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.make_formatter(is_terminal=False))
    logger = logging.Logger("inference.services")
    logger.addHandler(handler)

    def written(log: Callable[[logging.Logger], None]) -> dict[str, Any]:
        log(logger)
        (line,) = stream.getvalue().splitlines()
        values: dict[str, Any] = json.loads(line)
        return values

    return written


Write = Callable[[Callable[[logging.Logger], None]], dict[str, Any]]


def fail(error: Exception) -> Callable[[logging.Logger], None]:
    def log(logger: logging.Logger) -> None:
        try:
            raise error
        except type(error):
            logger.exception("it failed")

    return log


class TestLines:
    def test_say_when_how_serious_what_and_whose(self, write: Write) -> None:
        line = write(lambda logger: logger.warning("%d calls", 3))

        assert list(line) == ["timestamp", "level", "event", "logger"]
        assert line["timestamp"].endswith("Z")
        assert (line["level"], line["event"], line["logger"]) == ("warning", "3 calls", "inference.services")

    def test_carry_the_ids_that_are_bound(self, write: Write) -> None:
        with context.bound(trace_id="ab", session_id="s", turn_id="t", user_id=7):
            line = write(lambda logger: logger.info("said"))

        assert {name: line[name] for name in context.FIELDS} == {
            "trace_id": "ab",
            "session_id": "s",
            "turn_id": "t",
            "user_id": "7",
        }

    def test_carry_figures_and_nothing_else_of_extra(self, write: Write) -> None:
        extra = {**logs.figures(tokens=9), "request": SECRET}

        line = write(lambda logger: logger.info("generated", extra=extra))

        assert line["tokens"] == 9
        assert SECRET not in str(line)

    def test_are_one_line_whatever_is_logged(self, write: Write) -> None:
        line = write(lambda logger: logger.info("a\nb\x1b[31m\ud800"))

        assert line["event"] == "a\nb\x1b[31m\ud800"

    def test_are_not_longer_than_the_supervisor_reads(self, write: Write) -> None:
        line = write(lambda logger: logger.info("长" * 100_000))

        assert len(json.dumps(line, ensure_ascii=False).encode()) < 65536


class TestExceptions:
    def test_have_a_traceback_with_their_causes(self, write: Write) -> None:
        error = RuntimeError("out of memory")
        error.__cause__ = OSError(28, "No space left on device")

        line = write(fail(error))

        assert line["level"] == "error"
        assert "RuntimeError: out of memory" in line["exception"]
        assert "OSError: [Errno 28] No space left on device\ncaused:\n" in line["exception"]
        assert "test_logs.py" in line["exception"]

    def test_of_groups_show_each(self, write: Write) -> None:
        line = write(fail(ExceptionGroup("two", [RuntimeError("one"), TimeoutError("other")])))

        assert "RuntimeError: one" in line["exception"]
        assert "TimeoutError: other" in line["exception"]

    @pytest.mark.parametrize(
        "error",
        [
            ValueError(f"could not convert string to float: '{SECRET}'"),
            ValueError(f'bad value "{SECRET}'),
            KeyError(SECRET),
            UnicodeEncodeError("ascii", SECRET, 0, 1, "ordinal not in range"),
            type("DataError", (Exception,), {})(f'invalid input syntax for type integer: "{SECRET}"'),
            type("IntegrityError", (Exception,), {})(f"null value\nDETAIL: Failing row contains ({SECRET})."),
        ],
    )
    def test_do_not_repeat_what_users_said(self, write: Write, error: Exception) -> None:
        line = write(fail(error))

        assert "it failed" in line["event"]
        assert not set(SECRET) & set(str(line))

    def test_do_not_repeat_it_as_arguments_either(self, write: Write) -> None:
        error = type("IntegrityError", (Exception,), {})(f"null value\nDETAIL: Failing row contains ({SECRET}).")

        line = write(lambda logger: logger.warning("turn %s is not saved: %s", 1, error))

        assert line["event"] == "turn 1 is not saved: null value"

    def test_of_our_own_keep_their_words(self, write: Write) -> None:
        error = type("ProblemError", (ValueError,), {"__module__": "voices.services"})("voice 'x' is gone")

        assert "voice 'x' is gone" in write(fail(error))["exception"]


class TestConfiguration:
    def run(self, level: str, program: str) -> list[dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-c", "import logging, os\nfrom inference.telemetry import logs\n" + program],
            env=os.environ | {"AVATAR_LOG_LEVEL": level},
            capture_output=True,
            text=True,
            check=True,
        )
        return [json.loads(line) for line in done.stderr.splitlines()]

    def test_reads_the_level_of_every_process(self) -> None:
        program = (
            "logs.configure(logs.read_level(os.environ))\n"
            "for name in ('inference.host', 'openai', 'celery.app.trace'):\n"
            "    for level in (10, 20, 30, 40): logging.getLogger(name).log(level, '%s %d', name, level)\n"
        )

        shown = {level: {line["event"] for line in self.run(level, program)} for level in ("DEBUG", "", "ERROR")}

        assert shown["DEBUG"] == {
            *("inference.host 10", "inference.host 20", "inference.host 30", "inference.host 40"),
            # A library at DEBUG prints whole requests.
            *("openai 20", "openai 30", "openai 40", "celery.app.trace 30", "celery.app.trace 40"),
        }
        assert shown[""] == shown["DEBUG"] - {"inference.host 10"}
        assert shown["ERROR"] == {"inference.host 40", "openai 40", "celery.app.trace 40"}

    def test_refuses_an_unknown_level(self) -> None:
        with pytest.raises(ValueError, match=r"AVATAR_LOG_LEVEL=loud: expected one of DEBUG"):
            logs.read_level({"AVATAR_LOG_LEVEL": "loud"})

    def test_is_readable_on_a_terminal(self) -> None:
        record = logging.LogRecord("inference.host", logging.INFO, "", 0, "it is ready", None, None)

        line = logs.make_formatter(is_terminal=True).format(record)

        assert "it is ready" in line
        assert not line.startswith("{")
