"""What a web process does besides answering: probes, measures its event loop, renews its calls, reports samples."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from avatar_site.monitoring import reporting
from avatar_site.operations.status import get_prober
from realtime.call_table import call_table
from realtime.loop_lag import loop_lag
from realtime.waiting_list import waiting_list

logger = logging.getLogger(__name__)

#: Before work that has failed begins again.
RESTART_S = 5.0

Work = Callable[[], Awaitable[None]]


async def run() -> None:
    """Do all of it until cancelled. Needs the server's event loop, and Django."""
    await keep_running(
        {
            "prober": get_prober().run,
            "loop lag": loop_lag.run,
            "heartbeats of calls": call_table.run,
            "waiting list": waiting_list.run,
            "samples": reporting.run,
        }
    )


async def keep_running(works: Mapping[str, Work], *, restart_s: float = RESTART_S) -> None:
    """Run each until cancelled. One that fails or ends is logged and begun again; the others go on."""
    async with asyncio.TaskGroup() as group:
        for name, work in works.items():
            group.create_task(_repeat(name, work, restart_s), name=name)


async def _repeat(name: str, work: Work, restart_s: float) -> None:
    while True:
        try:
            await work()
            logger.error("background work %r has ended; it begins again", name)
        except Exception:
            logger.exception("background work %r failed; it begins again", name)
        await asyncio.sleep(restart_s)
