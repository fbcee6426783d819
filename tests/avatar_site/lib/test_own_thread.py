import asyncio
import threading
from collections.abc import Iterator

import pytest
from django.db import InterfaceError

from avatar_site.lib import own_thread
from avatar_site.lib.own_thread import OwnThread


@pytest.fixture
def thread() -> Iterator[OwnThread]:
    thread = OwnThread("test")
    yield thread
    thread.close()


def fail() -> None:
    raise ValueError("of the function")


class TestOwnThread:
    async def test_runs_in_one_thread_that_is_not_the_callers(self, thread: OwnThread) -> None:
        names = [await thread.run(lambda: threading.current_thread().name, 5) for _ in range(2)]

        assert names == ["test", "test"]

    async def test_raises_what_the_function_raises_and_goes_on(self, thread: OwnThread) -> None:
        with pytest.raises(ValueError, match="of the function"):
            await thread.run(fail, 5)

        assert await thread.run(lambda: "and on", 5) == "and on"

    async def test_survives_a_connection_that_cannot_be_closed(
        self, thread: OwnThread, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail_to_close() -> None:
            raise InterfaceError("connection already closed")

        with monkeypatch.context() as patched:
            patched.setattr(own_thread, "close_old_connections", fail_to_close)
            with pytest.raises(InterfaceError):
                await thread.run(lambda: "lost", 5)

        assert await thread.run(lambda: "and on", 5) == "and on"

    async def test_gives_up_what_hangs_and_refuses_at_once_until_it_has_ended(self, thread: OwnThread) -> None:
        begun, released, later = threading.Event(), threading.Event(), []

        def hang() -> None:
            begun.set()
            released.wait(20)

        with pytest.raises(TimeoutError):
            await thread.run(hang, 0.05)
        assert begun.is_set()
        with pytest.raises(TimeoutError, match="the thread test hangs"):
            await thread.run(lambda: later.append(1), 5)
        released.set()
        async with asyncio.timeout(5):
            while True:
                try:
                    result = await thread.run(lambda: "again", 5)
                except TimeoutError:
                    await asyncio.sleep(0)
                else:
                    break

        assert (result, later) == ("again", [])

    async def test_does_not_begin_what_was_given_up_in_the_queue(self, thread: OwnThread) -> None:
        released, ran = threading.Event(), []
        first = asyncio.create_task(thread.run(lambda: released.wait(20), 20))
        await asyncio.sleep(0)

        with pytest.raises(TimeoutError):
            await thread.run(lambda: ran.append("late"), 0.01)
        released.set()
        await first
        await thread.run(lambda: None, 5)

        assert ran == []

    async def test_begins_again_after_it_was_closed(self, thread: OwnThread) -> None:
        await thread.run(lambda: None, 5)
        thread.close()

        assert await thread.run(lambda: "again", 5) == "again"
