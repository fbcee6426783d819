"""
The ids of what a process works on: in its logs, and in the calls and tasks that it sends to other processes.

They live in context variables (structlog's): a task of asyncio starts with a copy of its parent's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from uuid import UUID, uuid4

from structlog import contextvars

#: What every line of a log may carry, and what is sent along. None of them says what was spoken.
FIELDS = ("trace_id", "session_id", "turn_id", "user_id")
#: Names of gRPC metadata and headers of Celery: this and the field, with hyphens.
PREFIX = "avatar-"


def make_trace_id(user_turn_id: UUID | None = None) -> str:
    """
    Return 32 hexadecimal digits, as W3C Trace Context has them: those of the user's turn, which the page knows too.

    Without a turn (a request, a task of the schedule): random.
    """
    return (user_turn_id or uuid4()).hex


def read() -> dict[str, str]:
    """Return the ids that are bound."""
    bound_now = contextvars.get_contextvars()
    return {name: str(bound_now[name]) for name in FIELDS if name in bound_now}


@contextmanager
def bound(**ids: object) -> Iterator[None]:
    """Bind ids (see FIELDS) while the context lasts. None binds nothing."""
    with contextvars.bound_contextvars(**{name: str(value) for name, value in ids.items() if value is not None}):
        yield


def bind(**ids: object) -> None:
    """Bind ids for the rest of this task: for one that ends with what they name. None binds nothing."""
    contextvars.bind_contextvars(**{name: str(value) for name, value in ids.items() if value is not None})


def forget_turn() -> None:
    """Unbind the turn in the running task, for work that an earlier turn's task has started."""
    contextvars.unbind_contextvars("trace_id", "turn_id")


def to_headers() -> dict[str, str]:
    """Return the bound ids as gRPC metadata or headers of a task."""
    return {PREFIX + name.replace("_", "-"): value for name, value in read().items()}


def from_headers(headers: Mapping[str, object] | Iterable[tuple[str, object]]) -> dict[str, str]:
    """Return the ids in metadata or headers, for `bound`. Others, and values of no plausible form, are ignored."""
    found = dict(headers)
    names = {PREFIX + name.replace("_", "-"): name for name in FIELDS}
    return {
        names[key]: value
        for key, value in found.items()
        if key in names and isinstance(value, str) and len(value) <= 64 and value.isascii() and value.isprintable()
    }
