"""The page in a real browser, with scripted engines behind it."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from playwright.async_api import expect

from tests.e2e.browser import PHONE, write_speech
from tests.e2e.conftest import OpenCall
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.timeout(360)]

LONG_TEXT = "請慢慢說一個很長的故事，從前有一座山，山裡有一座廟，廟裡有一個老和尚在講故事給小和尚聽。"


@pytest.fixture
def one_sentence(tmp_path: Path) -> Path:
    return write_speech(tmp_path / "one.wav", [("silence", 3), ("voice", 1.6), ("silence", 1)])


class TestTalking:
    async def test_shows_what_was_said_and_speaks_the_answer(self, open_call: OpenCall, one_sentence: Path) -> None:
        call = await open_call(microphone=one_sentence, reduced_motion="no-preference")
        await call.start()
        await call.start_tap()

        await call.wait_for("hearing")
        await call.wait_for("speaking")
        await call.wait_for("listening", timeout_s=30)

        await expect(call.user_turns).to_have_text(["你好"])
        await expect(call.replies).to_contain_text(["我聽到你說你好"])
        samples, rate = await call.read_tap()
        assert 3 * rate < len(samples) < 8 * rate
        assert float(np.abs(samples).max()) > 0.1
        assert call.problems == []

    async def test_plays_a_turn_again(self, open_call: OpenCall) -> None:
        call = await open_call()
        await call.start()
        await call.type("再放一次")
        await call.wait_for("speaking")
        await call.wait_for("listening", timeout_s=30)

        play = call.page.locator(".turn.is-avatar .turn-play")
        await play.click()

        await expect(play).to_have_attribute("aria-pressed", "true")
        await expect(play).to_have_attribute("aria-pressed", "false", timeout=20_000)
        assert call.problems == []

    async def test_falls_silent_when_stopped(self, open_call: OpenCall) -> None:
        call = await open_call()
        await call.start()
        await call.type(LONG_TEXT)
        await call.wait_for("speaking")

        await call.page.click("#stop")

        await call.wait_for("listening", timeout_s=3)
        await expect(call.page.locator(".turn.is-avatar .turn-interrupted")).to_be_visible()
        await call.start_tap()
        await asyncio.sleep(1)  # nothing to wait for: that nothing comes is what is tested
        samples, _rate = await call.read_tap()
        assert float(np.abs(samples).max(initial=0)) < 0.01

    async def test_stops_with_the_escape_key(self, open_call: OpenCall) -> None:
        call = await open_call()
        await call.start()
        await call.type(LONG_TEXT)
        await call.wait_for("speaking")

        await call.page.keyboard.press("Escape")

        await call.wait_for("listening", timeout_s=3)

    async def test_gives_way_to_a_person_who_speaks(self, open_call: OpenCall, tmp_path: Path) -> None:
        microphone = write_speech(tmp_path / "late.wav", [("silence", 7), ("voice", 1.5), ("silence", 1)])
        call = await open_call(microphone=microphone)
        await call.start()
        await call.type(LONG_TEXT)
        await call.wait_for("speaking")

        await call.wait_for("hearing")

        await expect(call.page.locator(".turn.is-avatar .turn-interrupted").first).to_be_visible()
        await call.wait_for("speaking")
        await expect(call.user_turns).to_have_text([LONG_TEXT, "你好"])

    async def test_takes_typed_words_while_it_speaks(self, open_call: OpenCall) -> None:
        call = await open_call()
        await call.start()
        await call.type(LONG_TEXT)
        await call.wait_for("speaking")

        await call.type("換個話題")

        await expect(call.user_turns).to_have_text([LONG_TEXT, "換個話題"])
        await expect(call.replies.last).to_contain_text("我聽到你說換個話題")
        await expect(call.page.locator("#notice")).to_be_hidden()

    async def test_goes_on_in_another_voice_when_its_own_is_deleted(
        self, open_call: OpenCall, fake_stack: Stack
    ) -> None:
        def run(*lines: str) -> None:
            code = ["from django.contrib.auth.models import User", "from tests import factories", *lines]
            fake_stack.manage("shell", "--no-imports", "--command", "\n".join(code))

        await asyncio.to_thread(
            run,
            "from voices.services import choose_default",
            "bob = User.objects.get(username='bob')",
            "choose_default(user=bob, profile=factories.create_voice_profile(owner=bob, name='快要不見的聲音'))",
        )
        call = await open_call(user="bob")
        own = call.page.locator("#voices label", has_text="快要不見的聲音")
        await expect(own.locator("input")).to_be_checked()
        await call.start()
        await call.type(LONG_TEXT)
        await call.wait_for("speaking")

        await asyncio.to_thread(
            run,
            "from voices.models import VoiceProfile",
            "from voices.services import delete_voice_profile",
            "delete_voice_profile(profile=VoiceProfile.objects.get(name='快要不見的聲音'))",
        )
        await call.type("那就換一個")

        await expect(call.page.locator("#notice-text")).to_have_text("你選的聲音已經無法使用，改由其他聲音說話。")
        await expect(own).to_have_count(0)
        await expect(call.page.locator('#voices input[value=""]')).to_be_checked()
        await expect(call.replies.last).to_contain_text("我聽到你說那就換一個")

    async def test_talks_without_a_microphone(self, open_call: OpenCall) -> None:
        call = await open_call(may_listen=False)
        await call.page.click("#start-typing")
        await call.wait_for("typing")

        await call.page.keyboard.type("只打字")
        await call.page.keyboard.press("Enter")

        await call.wait_for("speaking")
        await expect(call.replies).to_contain_text(["我聽到你說只打字"], timeout=15_000)
        assert call.problems == []

    async def test_listens_while_a_key_is_held(self, open_call: OpenCall, tmp_path: Path) -> None:
        microphone = write_speech(tmp_path / "held.wav", [("voice", 30)])
        call = await open_call(microphone=microphone)
        await call.page.click("#open-settings")
        await call.page.check('[name="mode"][value="hold_to_talk"]', force=True)
        await call.page.keyboard.press("Escape")
        await call.page.click("#start")
        await call.wait_for("hold")

        await call.page.focus("#talk")
        await call.page.keyboard.down("Space")
        await call.wait_for("holding")
        await asyncio.sleep(1.2)  # a person speaks
        await call.page.keyboard.up("Space")

        await call.wait_for("speaking")
        await expect(call.user_turns).to_have_text(["你好"])
        assert call.problems == []

    async def test_hears_nothing_while_muted(self, open_call: OpenCall, tmp_path: Path) -> None:
        microphone = write_speech(tmp_path / "voice.wav", [("silence", 4), ("voice", 2), ("silence", 1)])
        call = await open_call(microphone=microphone)
        await call.start()

        await call.page.click("#talk")

        await call.wait_for("muted")
        await asyncio.sleep(7)  # the file's voice has passed by then
        assert await call.user_turns.count() == 0
        await expect(call.page.locator("#talk")).to_have_attribute("aria-pressed", "true")

    async def test_shows_how_long_an_answer_took_when_asked(self, open_call: OpenCall) -> None:
        call = await open_call()
        await call.start()
        await call.type("多久")
        await call.wait_for("speaking")
        await call.wait_for("listening", timeout_s=30)
        latency = call.page.locator(".turn.is-avatar .turn-latency")
        await expect(latency).to_be_hidden()

        await call.page.click("#open-settings")
        await call.page.check('[name="shows_latency"]')
        await call.page.keyboard.press("Escape")

        await expect(latency).to_be_visible()
        await expect(latency).to_contain_text("開口")


class TestGoingOn:
    async def test_a_reload_goes_on_with_the_same_conversation(self, open_call: OpenCall) -> None:
        call = await open_call()
        await call.start()
        await call.type("記住這句話")
        await call.wait_for("speaking")
        await call.wait_for("listening", timeout_s=30)
        conversation_id = await call.page.evaluate("() => window.avatar.conversationId")
        assert call.page.url == f"{call.url}/c/{conversation_id}/"

        await call.page.reload()
        await expect(call.user_turns).to_have_text(["記住這句話"])
        await call.start()
        await call.type("然後呢")
        await call.wait_for("speaking")

        assert await call.page.evaluate("() => window.avatar.conversationId") == conversation_id
        await expect(call.user_turns).to_have_text(["記住這句話", "然後呢"])
        await expect(call.replies.first).to_contain_text("我聽到你說記住這句話")

    async def test_a_reload_in_the_middle_of_a_reply_keeps_what_was_heard(self, open_call: OpenCall) -> None:
        call = await open_call()
        await call.start()
        await call.type(LONG_TEXT)
        await call.wait_for("speaking")

        await call.page.reload()
        await call.start()

        await expect(call.user_turns).to_have_text([LONG_TEXT])
        await expect(call.page.locator(".turn.is-avatar .turn-interrupted")).to_be_visible()

    async def test_reconnects_when_the_server_comes_back(self, open_call: OpenCall, fake_stack: Stack) -> None:
        call = await open_call()
        await call.start()
        await call.type("第一句")
        await call.wait_for("speaking")
        await call.wait_for("listening", timeout_s=30)
        conversation_id = await call.page.evaluate("() => window.avatar.conversationId")

        await asyncio.to_thread(fake_stack.stop, "web")
        await call.wait_for("reconnecting")
        await expect(call.page.locator("#notice")).to_be_visible()
        fake_stack.start("web")
        await asyncio.to_thread(fake_stack.wait_until_ready)

        await call.wait_for("listening", timeout_s=30)
        await expect(call.page.locator("#notice")).to_be_hidden()
        await call.type("第二句")
        await call.wait_for("speaking")
        assert await call.page.evaluate("() => window.avatar.conversationId") == conversation_id
        await expect(call.user_turns).to_have_text(["第一句", "第二句"])

    async def test_a_stranger_finds_nothing(self, open_call: OpenCall) -> None:
        alices = await open_call()
        await alices.start()
        await alices.type("這是秘密")
        await alices.wait_for("speaking")
        bobs = await open_call(user="bob")

        response = await bobs.page.goto(alices.page.url)

        assert response is not None
        assert response.status == 404
        await expect(bobs.page.locator("h1")).to_have_text("這裡沒有東西")


#: The permission prompt stays open until `window.answerPrompt()`; sockets and microphones are counted.
_HOLD_PROMPT = """() => {
  window.microphones = [];
  window.sockets = [];
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  const answered = new Promise((resolve) => { window.answerPrompt = resolve; });
  navigator.mediaDevices.getUserMedia = async (constraints) => {
    await answered;
    const stream = await ask(constraints);
    window.microphones.push(stream);
    return stream;
  };
  window.WebSocket = class extends WebSocket {
    constructor(...all) { super(...all); window.sockets.push(this); }
  };
}"""
_COUNT_LIVE = """() => [
  window.microphones.flatMap((stream) => stream.getTracks()).filter((track) => track.readyState === "live").length,
  window.sockets.length,
]"""
#: Allows the microphone, and returns how many tracks are still live when it was there and had 3 s to be closed again.
_ANSWER_AND_WATCH = """async () => {
  const tick = () => new Promise((resolve) => setTimeout(resolve, 10));
  const live = () => window.microphones[0].getTracks().filter((track) => track.readyState === "live").length;
  window.answerPrompt();
  while (window.microphones.length === 0) await tick();
  for (const deadline = performance.now() + 3000; live() > 0 && performance.now() < deadline; ) await tick();
  return live();
}"""


class TestStarting:
    async def test_stays_ended_when_the_microphone_is_allowed_after_the_end(self, open_call: OpenCall) -> None:
        call = await open_call()
        await call.page.evaluate(_HOLD_PROMPT)
        await call.page.click("#start")
        await call.wait_for("asking")

        await call.page.click("#end")
        live_tracks = await call.page.evaluate(_ANSWER_AND_WATCH)

        assert live_tracks == 0
        await call.wait_for("idle")
        assert await call.page.evaluate(_COUNT_LIVE) == [0, 0]

    async def test_starts_once_for_two_quick_presses(self, open_call: OpenCall) -> None:
        call = await open_call()
        await call.page.evaluate(_HOLD_PROMPT)

        await call.page.evaluate("() => { for (let press = 0; press < 2; press++) window.start.click(); }")
        await call.page.evaluate("window.answerPrompt()")
        await call.wait_for("listening")

        assert await call.page.evaluate(_COUNT_LIVE) == [1, 1]
        await call.type("你好")
        await expect(call.replies).to_contain_text(["我聽到你說你好"])

    async def test_starts_again_while_the_prompt_of_an_ended_call_is_open(self, open_call: OpenCall) -> None:
        call = await open_call()
        await call.page.evaluate(_HOLD_PROMPT)
        await call.page.click("#start")
        await call.wait_for("asking")
        await call.page.click("#end")

        await call.page.click("#start")
        await call.page.evaluate("window.answerPrompt()")
        await call.wait_for("listening")

        assert await call.page.evaluate(_COUNT_LIVE) == [1, 1]


class TestLanguage:
    async def test_switches_without_ending_the_call(self, open_call: OpenCall) -> None:
        call = await open_call()
        page = call.page
        await call.start()
        await call.type("你好")
        await expect(call.replies).to_contain_text(["我聽到你說你好"])
        await page.evaluate("() => { window.socketBefore = window.avatar.socket; }")

        await page.click(".menu summary")
        await page.click(".language-switch button")

        await expect(page.locator("html")).to_have_attribute("lang", "en")
        await expect(page.locator("#end")).to_have_text("End")
        await expect(page.locator("#settings-title")).to_have_text("Settings")
        await expect(page.locator(".turn.is-user .turn-speaker")).to_have_text("You")
        await call.type("還在嗎")
        await expect(call.user_turns).to_have_text(["你好", "還在嗎"])
        await expect(call.replies.last).to_contain_text("我聽到你說還在嗎")
        assert await page.evaluate("() => window.socketBefore === window.avatar.socket && window.avatar.socket.isOpen")
        assert call.problems == []

    async def test_switches_back(self, open_call: OpenCall) -> None:
        call = await open_call()
        await call.start()
        await call.page.click(".menu summary")

        for language, label in (("en", "Stop"), ("zh-Hant-TW", "停止")):
            await call.page.click(".language-switch button")
            await expect(call.page.locator("html")).to_have_attribute("lang", language)
            await expect(call.page.locator("#stop")).to_have_text(label)


class TestTrouble:
    async def test_explains_a_blocked_microphone(self, open_call: OpenCall) -> None:
        call = await open_call(may_listen=False)

        await call.page.click("#start")

        notice = call.page.locator("#notice")
        await expect(notice).to_contain_text("麥克風被封鎖了")
        await notice.get_by_role("button", name="改用打字").click()
        await call.wait_for("typing")

    async def test_explains_a_missing_microphone(self, open_call: OpenCall) -> None:
        call = await open_call()
        await call.page.evaluate(
            """() => { navigator.mediaDevices.getUserMedia = async () => {
              throw new DOMException("none", "NotFoundError"); }; }"""
        )

        await call.page.click("#start")

        await expect(call.page.locator("#notice")).to_contain_text("找不到麥克風")

    async def test_waits_for_a_place_in_order_and_starts_when_one_is_free(self, open_call: OpenCall) -> None:
        others = [await open_call(user="bob") for _ in range(3)]
        for other in others:
            await other.start()
        first, second = await open_call(), await open_call(user="carol")

        for call, words in ((first, "等候中：下一位就是你"), (second, "等候中：前面還有 1 位")):
            await call.page.click("#start")
            await call.wait_for("waiting")
            await expect(call.page.get_by_role("status")).to_have_text(words)
            await expect(call.page.locator("#leave")).to_be_focused()
            assert not await call.page.evaluate("() => window.avatar.microphone.isOpen")
        await first.page.get_by_role("button", name="離開等候").click()
        await first.wait_for("idle")
        await expect(second.page.get_by_role("status")).to_have_text("等候中：下一位就是你")
        await others[0].page.click("#end")

        await second.wait_for("listening", timeout_s=30)
        await expect(second.page.locator("#leave")).to_be_hidden()
        await second.type("輪到我了")
        await expect(second.replies).to_have_count(1)

    async def test_asks_to_log_in_again_when_the_login_has_expired(self, open_call: OpenCall) -> None:
        call = await open_call()
        await call.page.context.clear_cookies()

        await call.page.click("#start")

        notice = call.page.locator("#notice")
        await expect(notice).to_contain_text("請重新登入")
        await expect(notice.get_by_role("link", name="登入")).to_have_attribute("href", "/accounts/login/?next=%2F")

    async def test_says_when_the_engines_are_away_and_goes_on_when_they_are_back(
        self, open_call: OpenCall, fake_stack: Stack
    ) -> None:
        call = await open_call()
        await call.start()

        await asyncio.to_thread(fake_stack.stop, "inference")
        await call.type("有人在嗎")
        await call.wait_for("unavailable")
        fake_stack.start("inference")

        await call.wait_for("listening", timeout_s=30)
        await call.type("回來了嗎")
        await expect(call.replies.last).to_contain_text("回來了嗎", timeout=20_000)


class TestLooks:
    async def test_speaks_both_languages(self, open_call: OpenCall) -> None:
        call = await open_call(locale="en-US")
        await expect(call.page.locator("#start")).to_have_text(re.compile("Start talking"))
        await expect(call.page.locator("html")).to_have_attribute("lang", "en")

        await call.page.click(".menu summary")
        await call.page.click(".language-switch button")

        await expect(call.page.locator("#start")).to_have_text(re.compile("開始說話"))
        await expect(call.page.locator("html")).to_have_attribute("lang", "zh-Hant-TW")

    async def test_refuses_a_wrong_password_politely(self, open_call: OpenCall) -> None:
        call = await open_call()
        await call.page.click(".menu summary")
        await call.page.click("#log-out")
        await call.page.fill("#id_username", "alice")
        await call.page.fill("#id_password", "wrong")

        await call.page.click("main button")

        await expect(call.page.get_by_role("alert")).to_contain_text("使用者名稱或密碼不對")

    @pytest.mark.parametrize("locale", ["zh-TW", "en-US"])
    async def test_fits_a_phone(self, open_call: OpenCall, locale: str) -> None:
        call = await open_call(locale=locale, viewport=PHONE, has_touch=True)
        assert await call.find_overflow() == []
        assert await call.find_small_targets() == []

        await call.start()
        await call.type(LONG_TEXT + "Supercalifragilisticexpialidocious" * 4)
        await call.wait_for("speaking")
        assert await call.find_overflow() == []
        assert await call.find_small_targets() == []

        await call.page.click("#open-settings")
        assert await call.find_overflow() == []
        assert await call.find_small_targets() == []

    async def test_names_every_control(self, open_call: OpenCall) -> None:
        call = await open_call()

        assert await call.find_nameless_controls() == []

    async def test_works_with_the_keyboard_alone(self, open_call: OpenCall) -> None:
        call = await open_call()
        await call.page.focus("#start")
        await call.page.keyboard.press("Enter")
        await call.wait_for("listening")
        await expect(call.page.locator("#talk")).to_be_focused()

        await call.page.keyboard.press("Shift+Tab")
        await expect(call.page.locator("#keyboard")).to_be_focused()
        await call.page.keyboard.press("Enter")
        await expect(call.page.locator("#message")).to_be_focused()
        await call.page.keyboard.type("你好嗎")
        await call.page.keyboard.press("Enter")

        await call.wait_for("speaking")

    async def test_keeps_the_choice_of_colours(self, open_call: OpenCall) -> None:
        call = await open_call(color_scheme="light")
        switch = call.page.locator("[data-theme-switch]")
        await call.page.click(".menu summary")

        await switch.click()
        await switch.click()
        await call.page.reload()

        await expect(call.page.locator("html")).to_have_attribute("data-theme", "dark")


class TestOneConversationInTwoWindows:
    async def test_goes_on_in_the_second_and_can_come_back(self, open_call: OpenCall) -> None:
        first = await open_call()
        await first.start()
        await first.type("你好")
        await first.wait_for("speaking")
        await first.wait_for("listening", timeout_s=30)
        second = await open_call(path=urlsplit(first.page.url).path)

        await second.start()

        await expect(first.page.locator("#notice")).to_contain_text("這段對話在別的地方繼續")
        await first.wait_for("idle")
        await first.page.click("#notice-actions button")
        await first.wait_for("listening")
        await expect(first.user_turns).to_have_text(["你好"])
        await expect(second.page.locator("#notice")).to_contain_text("這段對話在別的地方繼續")


def make_error(code: str, error: str) -> str:
    message = json.dumps({"type": "error", "code": code, "error": error, "is_fatal": False})
    return f"() => window.avatar.socket.onmessage({message})"


class TestKeeping:
    async def test_is_told_without_disturbing_who_speaks(self, open_call: OpenCall) -> None:
        call = await open_call()
        page, notice = call.page, call.page.locator("#notice")
        await call.start()
        await page.evaluate(
            """() => {
              const { socket } = window.avatar;
              socket.onmessage({type: "status", stage: "listening", is_speaking: true});
              socket.onmessage({type: "transcription", turn_id: crypto.randomUUID(), text: "我想", is_final: false});
            }"""
        )

        await page.evaluate(make_error("NOT_KEPT", "等一下再存"))

        await expect(notice).to_contain_text("等一下再存")
        await expect(page.locator(".turn.is-partial")).to_have_text(re.compile("我想"))
        await expect(page.locator("#main")).to_have_attribute("data-state", "hearing")

        await page.evaluate(make_error("KEPT_AGAIN", "都存好了"))

        await expect(notice).to_contain_text("都存好了")
        await expect(notice).not_to_contain_text("等一下再存")
        await expect(notice).not_to_have_class(re.compile("is-serious"))

    async def test_is_not_promised_after_a_call_of_which_nothing_is_kept(self, open_call: OpenCall) -> None:
        call = await open_call(user="bob")
        await call.page.check("#keeps-nothing", force=True)
        await call.start()

        await call.page.evaluate("() => window.avatar.socket.onrefused(4410)")

        await expect(call.page.locator("#notice")).to_contain_text("依你的選擇")
        await expect(call.page.locator("#notice")).not_to_contain_text("都還在")
