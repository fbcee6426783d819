"""The main job, for real: a person speaks, is understood, and hears an answer, in a real browser on real models."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.async_api import Browser, expect

from tests.e2e import speech
from tests.e2e.browser import CallPage, write_wav
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.engines, pytest.mark.timeout(420)]

Launch = Callable[..., Awaitable[Browser]]

MANDARIN = ("請問台灣最高的山叫什麼名字？", "zf_xiaoxiao")
ENGLISH = ("Can you tell me the name of a fruit that is yellow?", "af_heart")
BEFORE_SPEECH_S = 3.0
#: For a machine that does other work as well: what is tested is that an answer comes, not when.
ANSWER_TIMEOUT_S = 120
#: Numbers may be written in digits and spoken in words, so the reply's text and its recognition differ by more than the
#: recogniser's own errors; half of a short reply may be a number.
MOST_ERRORS_OF_A_REPLY = 0.5


async def record(stack: Stack, path: Path, *parts: tuple[str, str] | float) -> Path:
    """A microphone file of sentences (text, voice) and silences (seconds)."""
    pieces = []
    rate_hz = 24_000
    for part in parts:
        if isinstance(part, tuple):
            samples, rate_hz = await speech.synthesise(stack.inference_address, part[0], voice=part[1])
            pieces.append(samples)
        else:
            pieces.append(np.zeros(int(part * rate_hz), dtype=np.float32))
    return write_wav(path, np.concatenate(pieces), rate_hz)


async def open_call(stack: Stack, launch: Launch, microphone: Path) -> CallPage:
    browser = await launch(microphone=microphone)
    return await CallPage.open(await browser.new_context(locale="zh-TW"), stack.url)


class TestConversation:
    @pytest.mark.parametrize("sentence", [MANDARIN, ENGLISH], ids=["Mandarin", "English"])
    async def test_is_understood_and_answered_aloud(
        self, cpu_stack: Stack, launch: Launch, tmp_path: Path, sentence: tuple[str, str]
    ) -> None:
        microphone = await record(cpu_stack, tmp_path / "sentence.wav", BEFORE_SPEECH_S, sentence, 1.0)
        call = await open_call(cpu_stack, launch, microphone)
        await call.start()
        await call.start_tap()

        await call.wait_for("speaking", timeout_s=ANSWER_TIMEOUT_S)
        await call.wait_for("listening", timeout_s=ANSWER_TIMEOUT_S)

        said = await call.user_turns.first.inner_text()
        answered = await call.replies.first.inner_text()
        samples, rate_hz = await call.read_tap()
        heard = await speech.recognise(cpu_stack.inference_address, samples, rate_hz)
        assert speech.measure_character_error_rate(sentence[0], said) <= 0.2, said
        assert speech.measure_character_error_rate(answered, heard) <= MOST_ERRORS_OF_A_REPLY, (answered, heard)
        assert await call.user_turns.count() == 1, "the answer was heard as if a person had spoken"
        assert call.problems == []

    async def test_gives_way_and_goes_on_after_a_reload(self, cpu_stack: Stack, launch: Launch, tmp_path: Path) -> None:
        interruption = ("等一下，我想問別的事情。", "zm_yunxi")
        microphone = await record(cpu_stack, tmp_path / "late.wav", 14.0, interruption, 1.0)
        call = await open_call(cpu_stack, launch, microphone)
        await call.start()
        await call.type("請用一百個字介紹台灣的夜市，說得詳細一點。")
        await call.wait_for("speaking", timeout_s=ANSWER_TIMEOUT_S)

        await call.wait_for("hearing", timeout_s=ANSWER_TIMEOUT_S)

        await expect(call.page.locator(".turn.is-avatar .turn-interrupted").first).to_be_visible()
        await expect(call.user_turns).to_have_count(2, timeout=ANSWER_TIMEOUT_S * 1000)
        await call.wait_for("speaking", timeout_s=ANSWER_TIMEOUT_S)
        conversation_id = await call.page.evaluate("() => window.avatar.conversationId")

        await call.page.reload()
        await call.start()

        assert await call.page.evaluate("() => window.avatar.conversationId") == conversation_id
        await expect(call.user_turns).to_have_text([re.compile("夜市"), re.compile("等一下|別的")])
        await call.type("謝謝")
        await call.wait_for("speaking", timeout_s=ANSWER_TIMEOUT_S)
