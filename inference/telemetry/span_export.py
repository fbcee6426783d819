"""Makes and sends spans by OpenTelemetry's SDK. Imported by `tracing` alone, and only where spans are exported."""

from __future__ import annotations

import time
from contextvars import ContextVar

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context

from inference.telemetry.tracing import Attributes

#: The trace id of the turn whose root span is being made.
_turn: ContextVar[int | None] = ContextVar("turn", default=None)
_SPAN_ID_BITS = 64


def make_provider(service_name: str) -> TracerProvider:
    """Return a provider that sends to OTEL_EXPORTER_OTLP_ENDPOINT; the SDK's other variables hold as well."""
    # Every turn: one sampled by chance in one process would lack the spans of the others.
    provider = TracerProvider(
        sampler=ALWAYS_ON, id_generator=TurnIds(), resource=Resource.create({SERVICE_NAME: service_name})
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class TurnIds(IdGenerator):
    """Random ids, but for the root span of a turn."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()

    def generate_span_id(self) -> int:
        turn = _turn.get()
        return self._random.generate_span_id() if turn is None else make_root_id(turn)

    def generate_trace_id(self) -> int:
        turn = _turn.get()
        return self._random.generate_trace_id() if turn is None else turn


def make_root_id(trace_id: int) -> int:
    """Return the second half of a trace id. Of a UUID, it is never 0."""
    return trace_id % (1 << _SPAN_ID_BITS)


class SpanExport:
    """Adds spans to turns."""

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider
        self._tracer = provider.get_tracer("avatar")
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def record(
        self,
        name: str,
        trace_id: str,
        *,
        began_s: float,
        ended_s: float,
        attributes: Attributes | None,
        is_root: bool,
    ) -> None:
        turn = int(trace_id, 16)
        token = _turn.set(turn if is_root else None)
        try:
            span = self._tracer.start_span(
                name,
                context=Context() if is_root else _make_parent(turn),
                kind=SpanKind.SERVER if is_root else SpanKind.INTERNAL,
                attributes=attributes,
                start_time=self._to_epoch_ns(began_s),
            )
        finally:
            _turn.reset(token)
        span.end(self._to_epoch_ns(ended_s))

    def _to_epoch_ns(self, monotonic_s: float) -> int:
        return round(monotonic_s * 1e9) + self._offset_ns


def _make_parent(turn: int) -> Context:
    root = SpanContext(turn, make_root_id(turn), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(root), Context())
