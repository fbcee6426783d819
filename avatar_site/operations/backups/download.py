"""Streams a file of a target to a browser as fast as it is taken, in constant memory."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import threading
from collections.abc import AsyncGenerator
from typing import BinaryIO

from avatar_site.operations.backups.targets import Target

logger = logging.getLogger(__name__)

#: Size of each piece of the response.
PIECE_BYTES = 64 * 1024


class Download:
    """
    A file of a target, for a streaming response: a thread reads it into a pipe, which holds no more than 64 KiB.

    Closed early, the thread ends at its next write. A read that fails in the middle raises, so that the connection is
    cut: the body is then shorter than its Content-Length, and browsers report a failed download.
    """

    def __init__(self, target: Target, key: str) -> None:
        self._error: Exception | None = None
        output, input_ = os.pipe()
        self._output: BinaryIO = open(output, "rb", buffering=0)  # noqa: PTH123, SIM115 — a descriptor, closed below
        thread = threading.Thread(target=self._copy, args=(target, key, input_), name="download", daemon=True)
        thread.start()

    def wait_for_first(self, timeout_s: float) -> None:
        """Wait for the first bytes, while an error can still be a page. Raises as `Target.read`, and TimeoutError."""
        if not select.select([self._output], [], [], timeout_s)[0]:
            self.close()
            raise TimeoutError
        if self._error is not None:
            self.close()
            raise self._error

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        reader = asyncio.StreamReader(limit=PIECE_BYTES)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._output
        )
        try:
            while piece := await reader.read(PIECE_BYTES):
                yield piece
            if self._error is not None:
                raise self._error
        finally:
            transport.close()

    def close(self) -> None:
        """End it, whether it was begun or not."""
        self._output.close()

    def _copy(self, target: Target, key: str, input_: int) -> None:
        try:
            # Buffered: an unbuffered write to a pipe may be partial.
            with open(input_, "wb") as file:
                try:
                    target.read(key, file)
                except BrokenPipeError:
                    raise
                except Exception as error:
                    # Set before the pipe is closed, so that the reader sees it at end of file.
                    self._error = error
        except BrokenPipeError:
            logger.info("the download of %s was left before its end", key)
