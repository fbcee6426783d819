"""What the host expects of every engine besides its role's protocol. Imports no model library."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from inference.engines.background_gate import BackgroundGate


class Engine:
    """
    Defaults of an engine's abilities, which engines override.

    The engine sets `model_name` and `device` ("cpu", "cuda:0", "remote").
    """

    model_name: str
    device: str
    #: Whether it clones the voice of `SynthesisOptions.reference`.
    can_clone: bool = False
    #: Holds its background jobs back. An engine with such jobs has one of its own; on the processor, the host replaces
    #: it by the one that all engines there share.
    gate: BackgroundGate = BackgroundGate()

    @property
    def is_on_processor(self) -> bool:
        return self.device == "cpu"

    @property
    def is_on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def figures(self) -> Mapping[str, float]:
        """The engine's own metrics by name, for the status: times in seconds, counts."""
        return MappingProxyType({})

    async def warm_up(self) -> None:
        """Do one call of each kind, so that no live call waits for lazy initialisation."""

    async def close(self) -> None:
        """Free threads and memory. The host calls it when no call is active."""

    def diagnose(self) -> str:
        """Return why the engine cannot be used at the moment, or "". Called every second and before every call."""
        return ""
