"""How late the event loop of this process is. Imports no Django."""

from __future__ import annotations

import asyncio
from collections import deque

from avatar_site.lib.metrics import LOOP_LAG_SECONDS

#: Between two readings.
INTERVAL_S = 0.25
#: Readings in a row above a limit, so that a single long step (a collection of garbage) refuses nobody.
READINGS = 3
#: The gauge shows the worst of the last five seconds, the interval at which it is read.
GAUGE_READINGS = 20


class LoopLag:
    """The latest readings: how many seconds after its time a timer ran."""

    def __init__(self) -> None:
        self._late_s: deque[float] = deque(maxlen=GAUGE_READINGS)

    @property
    def worst_s(self) -> float:
        """The longest of the last GAUGE_READINGS; 0 without any."""
        return max(self._late_s, default=0.0)

    def exceeds(self, limit_s: float) -> bool:
        """Whether each of the last READINGS was above the limit."""
        latest = list(self._late_s)[-READINGS:]
        return len(latest) == READINGS and min(latest) > limit_s

    def note(self, late_s: float) -> None:
        self._late_s.append(max(0.0, late_s))
        LOOP_LAG_SECONDS.set(self.worst_s)

    async def run(self) -> None:
        """Measure the running loop until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                due_at = loop.time() + INTERVAL_S
                await asyncio.sleep(INTERVAL_S)
                self.note(loop.time() - due_at)
        finally:
            self._late_s.clear()


loop_lag = LoopLag()
