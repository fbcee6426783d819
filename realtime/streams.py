"""Waits for other processes, with a timeout; closes streams in every case. Imports no Django, no gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable
from typing import TypeVar

from inference.interfaces import InferenceUnavailable
from realtime.call.utterance import AudioDecodingError, AudioTooLong
from realtime.call.voice import VoiceUnreadable

logger = logging.getLogger(__name__)

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


async def attempt(work: Awaitable[Item], *, timeout_s: float) -> Item | Exception:
    """Await work of another part, with a deadline. Return its result or its exception: no failure ends the call."""
    what = getattr(work, "__qualname__", work)
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except (AudioDecodingError, AudioTooLong, VoiceUnreadable) as error:
        return error
    except TimeoutError as error:
        logger.warning("%s took more than %g s", what, timeout_s)
        return error
    except Exception as error:
        logger.exception("%s failed", what)
        return error
