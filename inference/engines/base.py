"""What the model process asks of every engine beyond its role. Imports no model library."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from inference.engines.background_gate import BackgroundGate


class Engine:
    """
    An engine that can do nothing special: what it can do beyond that, it overrides.

    `model_name` and `device` ("cpu", "cuda:0") are the engine's to set.
    """

    model_name: str
    device: str
    #: Whether it speaks like `SynthesisOptions.reference`.
    can_clone: bool = False
    #: Holds its background jobs back. An engine with such jobs has one of its own; on the processor, the host replaces
    #: it by the one that all engines there share.
    gate: BackgroundGate = BackgroundGate()

    @property
    def figures(self) -> Mapping[str, float]:
        """Its own figures by name, for the status: times in seconds, counts."""
        return MappingProxyType({})

    async def warm_up(self) -> None:
        """Do one call of each kind, so that the first person does not wait for lazy work."""

    async def close(self) -> None:
        """Free threads and memory. No call is under way."""

    def diagnose(self) -> str:
        """Return why it cannot be used at the moment, or "". Asked every second and before every call."""
        return ""
