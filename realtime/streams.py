"""Reading other processes' streams: with a timeout, and closed whatever happens. Knows no Django, Channels or gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import TypeVar

from inference.interfaces import InferenceUnavailable

Item = TypeVar("Item")


async def within(
    source: AsyncGenerator[Item], *, first_s: float, next_s: float, what: str
) -> AsyncGenerator[Item, None]:
    """
    Yield from `source`, and close it at the end.

    Raises InferenceUnavailable when an item takes longer than `first_s` (the first) or `next_s` (the others). Hold it
    in `contextlib.aclosing`: a generator left in its middle is closed some time later only.
    """
    timeout_s = first_s
    async with contextlib.aclosing(source):
        while True:
            try:
                async with asyncio.timeout(timeout_s):
                    item = await anext(source)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise InferenceUnavailable(f"{what} did not come within {timeout_s:g} s") from None
            yield item
            timeout_s = next_s
