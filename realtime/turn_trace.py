"""The spans of one reply and of the turn that it answers. Imports no Django, Channels or gRPC."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from inference.telemetry import tracing
from inference.telemetry.context import make_trace_id


class TurnTrace:
    """
    Collects spans until the reply is committed; those of a reply that is dropped are forgotten.

    Times are of the call's clock, in seconds. Costs nothing unless spans are exported.
    """

    def __init__(self, user_turn_id: UUID) -> None:
        self._trace_id = make_trace_id(user_turn_id)
        self._early: list[tuple[str, float, float, tracing.Attributes]] = []
        self._began_s: float | None = None

    def add(self, name: str, began_s: float, ended_s: float, **attributes: int | bool) -> None:
        if not tracing.is_on():
            return
        if self._began_s is None:
            self._early.append((name, began_s, ended_s, attributes))
        else:
            tracing.record(name, self._trace_id, began_s=began_s, ended_s=ended_s, attributes=attributes)

    def commit(
        self,
        asked_at: float,
        *,
        stt_ms: int | None,
        endpoint_s: float | None,
        prefills: Iterable[tuple[float, float]] = (),
    ) -> None:
        """Say that the reply is wanted, when it was asked for, and what was done for it before."""
        early, self._early = self._early, []
        self._began_s = asked_at
        for name, began_s, ended_s, attributes in early:
            self.add(name, began_s, ended_s, **attributes)  # type: ignore[arg-type]  # as `add` took them
        for began_s, ended_s in prefills:
            self.add("prefill", began_s, ended_s)
        if endpoint_s is not None:
            self.add("endpoint", asked_at, asked_at + endpoint_s)
        if stt_ms is not None:
            self.add("stt", asked_at, asked_at + stt_ms / 1000)

    def end(self, now: float, **attributes: int | bool) -> None:
        """Add the root span, once."""
        if self._began_s is not None and tracing.is_on():
            tracing.record_turn(self._trace_id, began_s=self._began_s, ended_s=now, attributes=attributes)
