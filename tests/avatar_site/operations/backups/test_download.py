from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import pytest

from avatar_site.operations.backups.download import PIECE_BYTES, Download
from avatar_site.operations.backups.targets import Target, TargetError

MIB = 1 << 20


class ManyBytes:
    """A target whose file has 64 MiB, and that counts the bytes read from it."""

    address = "memory"

    def __init__(self, fails_after: int = 64) -> None:
        self.taken_bytes = 0
        self.has_ended = threading.Event()
        self._fails_after = fails_after

    def read(self, key: str, destination: Any) -> None:
        try:
            for number in range(64):
                if number == self._fails_after:
                    raise TargetError("the bucket is away")
                destination.write(bytes([number]) * MIB)
                self.taken_bytes += MIB
        finally:
            self.has_ended.set()


def open_download(target: ManyBytes) -> Download:
    return Download(cast(Target, target), "db/some.sqlite3.gz")


class TestDownload:
    async def test_sends_all_of_it_in_order(self) -> None:
        pieces = [piece async for piece in open_download(ManyBytes())]

        content = b"".join(pieces)
        assert len(content) == 64 * MIB
        assert content[::MIB] == bytes(range(64))
        assert max(map(len, pieces)) <= PIECE_BYTES

    async def test_takes_no_more_than_its_receiver(self) -> None:
        target = ManyBytes()
        stream = aiter(open_download(target))

        await anext(stream)

        # A pipe, a buffer, and the write that waits.
        assert target.taken_bytes <= MIB
        await stream.aclose()

    async def test_ends_when_its_receiver_leaves(self) -> None:
        target = ManyBytes()
        stream = aiter(open_download(target))
        await anext(stream)

        await stream.aclose()

        # The loop closes the pipe.
        assert await asyncio.to_thread(target.has_ended.wait, 60)
        assert target.taken_bytes < 64 * MIB

    def test_ends_when_it_is_never_begun(self) -> None:
        target = ManyBytes()
        download = open_download(target)
        download.wait_for_first(60)

        download.close()

        assert target.has_ended.wait(60)

    async def test_raises_where_it_breaks_off(self) -> None:
        received: list[bytes] = []

        async def receive() -> None:
            async for piece in open_download(ManyBytes(fails_after=3)):
                received.append(piece)

        with pytest.raises(TargetError, match="the bucket is away"):
            await receive()

        assert sum(map(len, received)) == 3 * MIB

    def test_says_at_once_that_there_is_nothing(self) -> None:
        with pytest.raises(TargetError, match="the bucket is away"):
            open_download(ManyBytes(fails_after=0)).wait_for_first(60)
