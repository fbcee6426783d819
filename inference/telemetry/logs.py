"""
How every process logs: lines of JSON on stderr, readable ones on a terminal. Imports no Django.

A line has `timestamp`, `level`, `event`, `logger`, the ids of `telemetry.context` that are bound, and the figures that
its caller gives. It never holds what somebody said, typed or searched for. That is why the messages of exceptions are
cut (`read_message`), values of `extra` other than `figures` are ignored, and no library logs at DEBUG: some print whole
requests there.
"""

from __future__ import annotations

import logging
import logging.config
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from inference.telemetry import context

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
#: What AVATAR_LOG_LEVEL=DEBUG concerns.
OUR_PACKAGES = ("avatar_site", "conversations", "inference", "realtime", "voices")
#: Libraries that say too much for their users' sakes: one line of ours says the same.
QUIET_LOGGERS = {
    # A line per request to an engine elsewhere.
    "httpx": "WARNING",
    # "Task received", "Task succeeded": `avatar_site/celery_logs.py` writes one line per task.
    "celery.worker.strategy": "WARNING",
    "celery.app.trace": "WARNING",
    # A line per recognition.
    "faster_whisper": "WARNING",
}
#: The supervisor cuts a line at 64 KiB.
MAX_EVENT_CHARACTERS = 4000
MAX_EXCEPTION_CHARACTERS = 12_000
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|“[^”]*”|'.*|\".*", re.DOTALL)


def figures(**values: object) -> dict[str, object]:
    """Return what a line of the log says in numbers: `logger.info("generated", extra=figures(tokens=9))`."""
    return {"figures": values}


def read_level(environment: Mapping[str, str]) -> str:
    """Return AVATAR_LOG_LEVEL. Raises ValueError, with the sentence for the operator."""
    level = environment.get("AVATAR_LOG_LEVEL", "").strip() or "INFO"
    if level not in LEVELS:
        raise ValueError(f"AVATAR_LOG_LEVEL={level}: expected one of {', '.join(LEVELS)}")
    return level


def configure(level: str) -> None:
    """Have this process log from `level` on. Django does the same from its setting LOGGING."""
    logging.config.dictConfig(make_config(level))


def make_config(level: str, *, is_terminal: bool | None = None) -> dict[str, Any]:
    """Return a configuration for `logging.config.dictConfig`. By default it looks whether stderr is a terminal."""
    if is_terminal is None:
        is_terminal = sys.stderr is not None and sys.stderr.isatty()
    library_level = "INFO" if level == "DEBUG" else level
    loggers: dict[str, dict[str, Any]] = {name: {"level": level} for name in OUR_PACKAGES}
    # Those in which Django brings handlers and levels of its own.
    loggers |= {
        name: {"handlers": [], "level": library_level, "propagate": True} for name in ("django", "django.server")
    }
    loggers |= {name: {"level": "ERROR" if level == "ERROR" else quiet} for name, quiet in QUIET_LOGGERS.items()}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": make_formatter, "is_terminal": is_terminal}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": library_level},
        "loggers": loggers,
    }


def make_formatter(*, is_terminal: bool) -> logging.Formatter:
    renderer: Processor = structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
    if is_terminal:
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    return _Formatter(
        foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name],
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_figures,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _describe_exception,
            _order,
            renderer,
        ],
    )


class _Formatter(structlog.stdlib.ProcessorFormatter):
    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record.args, tuple) and any(isinstance(each, BaseException) for each in record.args):
            arguments = record.args
            record = logging.makeLogRecord(record.__dict__)
            record.args = tuple(read_message(each) if isinstance(each, BaseException) else each for each in arguments)
        return super().format(record)


def _add_figures(_: Any, __: str, event: EventDict) -> EventDict:
    for name, value in getattr(event["_record"], "figures", {}).items():
        event.setdefault(name, value)
    return event


def _describe_exception(_: Any, __: str, event: EventDict) -> EventDict:
    raised = event.pop("exc_info", None)
    event.pop("stack_info", None)
    if raised is True:
        raised = sys.exc_info()
    if isinstance(raised, BaseException):
        raised = (type(raised), raised, raised.__traceback__)
    if isinstance(raised, tuple) and raised[1] is not None:
        event["exception"] = format_exception(raised[1], raised[2])[-MAX_EXCEPTION_CHARACTERS:]
    return event


def _order(_: Any, __: str, event: EventDict) -> EventDict:
    """Put what every line has first, and cut what is too long."""
    text = str(event.pop("event", ""))
    if event.get("logger") == "asyncio":
        text = text.partition("\n")[0]  # the rest shows the exception of a task as it is
    head = {
        "timestamp": event.pop("timestamp"),
        "level": event.pop("level"),
        "event": text[:MAX_EVENT_CHARACTERS],
        "logger": event.pop("logger", ""),
    }
    return {**head, **context.read(), **event}


# --- exceptions ---


def format_exception(error: BaseException, at: TracebackType | None = None) -> str:
    """Return a traceback as Python prints it, with `describe_error` for the messages."""
    return "\n".join(_format_chain(error, at or error.__traceback__, seen=set()))


def _format_chain(error: BaseException, at: TracebackType | None, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in seen:
        yield from _format_chain(before, before.__traceback__, seen)
        is_cause = error.__cause__ is not None
        yield "caused:" if is_cause else "during handling of which was raised:"
    yield "Traceback (most recent call last):"
    yield from (line.rstrip("\n") for line in traceback.format_tb(at))
    yield describe_error(error)
    if isinstance(error, BaseExceptionGroup):
        for number, each in enumerate(error.exceptions, start=1):
            if id(each) not in seen:
                lines = "\n".join(_format_chain(each, each.__traceback__, seen))
                yield f"  {number}: " + lines.replace("\n", "\n  ")


def describe_error(error: BaseException) -> str:
    """Return an exception's class and message, without what users said or wrote: see `read_message`."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    message = read_message(error)
    return name if message == kind.__qualname__ else f"{name}: {message}"


def read_message(error: BaseException) -> str:
    """
    Return an exception's message without what users said or wrote; its class, if nothing is left.

    Databases repeat the values of a row (PostgreSQL in the lines after the first, and of values of a wrong type in the
    first), and so do conversions: "could not convert string to float: '三'".
    """
    kind = type(error)
    if {each.__name__ for each in kind.__mro__} & {"DataError", "ValidationError", "UnicodeError"}:
        return kind.__qualname__
    message = str(error).partition("\n")[0][:500]
    is_ours = kind.__module__.partition(".")[0] in OUR_PACKAGES
    if isinstance(error, ValueError | LookupError | AssertionError) and not is_ours:
        message = _QUOTED.sub("…", message)
    return message or kind.__qualname__
