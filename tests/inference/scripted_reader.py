"""A reader of device memory that returns what a test gives it."""

from inference.interfaces import DeviceMemory


class ScriptedReader:
    """Returns the given readings one after the other, and then the last one again."""

    def __init__(self, *readings: tuple[DeviceMemory, ...]) -> None:
        self._readings = list(readings)

    def set(self, *readings: tuple[DeviceMemory, ...]) -> None:
        self._readings = list(readings)

    def read(self) -> tuple[DeviceMemory, ...]:
        return self._readings.pop(0) if len(self._readings) > 1 else self._readings[0]
