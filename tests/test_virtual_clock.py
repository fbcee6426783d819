from __future__ import annotations

import asyncio
import threading
import time

from tests.virtual_clock import THREAD_S, VirtualClockLoop


class TestVirtualClock:
    def test_jumps_to_the_next_timer(self) -> None:
        async def wait() -> float:
            began_at = asyncio.get_running_loop().time()
            await asyncio.sleep(3600)
            return asyncio.get_running_loop().time() - began_at

        began_at = time.monotonic()
        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            assert round(runner.run(wait())) == 3600
        assert time.monotonic() - began_at < 60

    def test_stands_still_while_a_thread_works(self) -> None:
        async def work() -> float:
            loop = asyncio.get_running_loop()
            began_at = loop.time()
            timer = loop.call_later(3600, lambda: None)
            await asyncio.to_thread(time.sleep, THREAD_S / 10)
            timer.cancel()
            return loop.time() - began_at

        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            assert runner.run(work()) < 1

    def test_goes_on_while_a_thread_hangs(self) -> None:
        released = threading.Event()

        async def work() -> bool:
            hanging = asyncio.get_running_loop().run_in_executor(None, released.wait)
            _, pending = await asyncio.wait([hanging], timeout=3600)
            released.set()
            return bool(pending)

        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            assert runner.run(work())
