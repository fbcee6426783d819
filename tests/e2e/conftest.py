"""Browsers and servers for the tests that go the whole way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, async_playwright, expect

from avatar_site.operations.startup import make_opening
from tests.e2e import browser, speech
from tests.e2e.browser import CallPage, VoicesPage
from tests.e2e.stack import Stack

# Playwright's own limit is 5 s, which a machine that does other work as well can exceed.
expect.set_options(timeout=20_000)

#: The avatar is drawn sixty times a second in software, which takes a core from what is tested; one test has it move.
CONTEXT: dict[str, Any] = {"locale": "zh-TW", "viewport": browser.DESKTOP, "reduced_motion": "reduce"}
#: opens the call page: `await open_call(microphone=…, path=…, user=…, **context options)`
OpenCall = Callable[..., Awaitable[CallPage]]
#: opens a page about voices: `await open_voices(path="/voices/new/", microphone=…, user=…, **context options)`
OpenVoices = Callable[..., Awaitable[VoicesPage]]


@pytest.fixture(scope="session")
def fake_stack() -> Iterator[Stack]:
    """AVATAR with scripted engines; three may talk at once, and fitting is short: long enough to be watched."""
    few = {"AVATAR_MAX_SESSIONS": "3", "AVATAR_MAX_CALLS_PER_PERSON": "3", "AVATAR_VOICE_FITTING_STEPS": "15"}
    with Stack(profile="fake", ready_timeout_s=60, **few) as stack:
        yield stack


@pytest.fixture(scope="session")
def cpu_stack() -> Iterator[Stack]:
    """AVATAR with real models, prefilled as the supervisor does it."""
    with Stack(profile="cpu", ready_timeout_s=240) as stack:
        asyncio.run(speech.prefill(stack.inference_address, make_opening()))
        yield stack


@pytest.fixture
async def launch() -> AsyncIterator[Callable[..., Awaitable[Browser]]]:
    """Starts browsers, and ends them. Each microphone file needs a browser of its own."""
    async with async_playwright() as playwright, contextlib.AsyncExitStack() as browsers:

        async def launch(*, microphone: Path | None = None, may_listen: bool = True) -> Browser:
            started = await browser.launch(playwright, microphone=microphone, may_listen=may_listen)
            browsers.push_async_callback(started.close)
            return started

        yield launch


@pytest.fixture
async def open_call(fake_stack: Stack, launch: Callable[..., Awaitable[Browser]], tmp_path: Path) -> OpenCall:
    """Opens the call page of the fake stack, logged in, in Chinese on a desktop unless told otherwise."""
    silence = browser.write_speech(tmp_path / "silence.wav", [("silence", 0.5)])

    async def open_call(
        *,
        microphone: Path = silence,
        may_listen: bool = True,
        path: str = "/",
        user: str = "alice",
        **options: Any,
    ) -> CallPage:
        started = await launch(microphone=microphone, may_listen=may_listen)
        context = await started.new_context(**(CONTEXT | options))
        return await CallPage.open(context, fake_stack.url, path=path, user=user)

    return open_call


@pytest.fixture
async def open_voices(fake_stack: Stack, launch: Callable[..., Awaitable[Browser]]) -> OpenVoices:
    """Opens a page about voices of the fake stack, logged in, in Chinese on a desktop unless told otherwise."""

    async def open_voices(
        *,
        path: str = "/voices/",
        microphone: Path | None = None,
        may_listen: bool = True,
        user: str = "alice",
        **options: Any,
    ) -> VoicesPage:
        started = await launch(microphone=microphone, may_listen=may_listen)
        context = await started.new_context(**(CONTEXT | options))
        return await VoicesPage.open(context, fake_stack.url, path=path, user=user)

    return open_voices
