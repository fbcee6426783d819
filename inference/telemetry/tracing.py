"""
Spans of turns, sent by OTLP over HTTP. Imports no Django, and no OpenTelemetry while no endpoint is set.

The trace id of a turn is the id of the user's turn, and the id of its root span is the second half of that: any process
adds spans to a turn whose id it knows. No attribute says who spoke or what was said.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from inference.telemetry.span_export import SpanExport

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
Attributes = Mapping[str, str | int | float | bool]

_export: SpanExport | None = None


def configure(process: str) -> bool:
    """
    Begin to export the spans of this process, "web" or "inference". Return False if no endpoint is set.

    Spans are sent in the background, in batches; while the receiver is away, what does not fit a queue is dropped.
    """
    global _export
    if not os.environ.get(ENDPOINT, "").strip():
        return False
    if _export is None:
        from inference.telemetry.span_export import SpanExport, make_provider

        _export = SpanExport(make_provider(f"avatar-{process}"))
    return True


def use(provider: TracerProvider) -> None:
    """Export by this provider, which must have `span_export.TurnIds`."""
    global _export
    from inference.telemetry.span_export import SpanExport

    _export = SpanExport(provider)


def is_on() -> bool:
    """Whether spans are exported. Ask before doing work for a span."""
    return _export is not None


def shut_down() -> None:
    """Send what waits, and stop. Takes some seconds at most. Done at the end of the process in any case."""
    global _export
    export, _export = _export, None
    if export is not None:
        export.provider.shutdown()


def record(name: str, trace_id: str, *, began_s: float, ended_s: float, attributes: Attributes | None = None) -> None:
    """Add a span to a turn. Times are of `time.monotonic`. Does nothing unless spans are exported."""
    if _export is not None:
        _export.record(name, trace_id, began_s=began_s, ended_s=ended_s, attributes=attributes, is_root=False)


def record_turn(trace_id: str, *, began_s: float, ended_s: float, attributes: Attributes | None = None) -> None:
    """Add the root span of a turn."""
    if _export is not None:
        _export.record("turn", trace_id, began_s=began_s, ended_s=ended_s, attributes=attributes, is_root=True)


@contextmanager
def span(
    name: str,
    trace_id: str | None,
    *,
    attributes: Attributes | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Add a span of what is done inside, also if it fails or is cancelled. Without a trace id: none."""
    if _export is None or trace_id is None:
        yield
        return
    began_s = clock()
    try:
        yield
    finally:
        record(name, trace_id, began_s=began_s, ended_s=clock(), attributes=attributes)
