"""What was said: found, heard again, corrected, taken along and deleted, in a real browser."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.e2e.browser import PHONE, CallPage, write_speech
from tests.e2e.conftest import OpenCall
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.timeout(360)]

#: Nobody answers the browser's own dialog in a test.
LEAVE_IT_TO_THE_BROWSER = "() => { window.showSaveFilePicker = undefined; }"
#: As if a person had chosen a file: one of the page's own storage, which is written in the same way.
CHOOSE_A_FILE = """() => {
  window.showSaveFilePicker = async ({suggestedName}) => {
    window.file = await (await navigator.storage.getDirectory()).getFileHandle(suggestedName, {create: true});
    window.furthest = 0;
    const bar = document.getElementById("transfer-progress");
    new MutationObserver(() => { window.furthest = Math.max(window.furthest, bar.value); }).observe(
      bar, {attributes: true, attributeFilter: ["value"]});
    return window.file;
  };
}"""
READ_THE_FILE = "async () => [...new Uint8Array(await (await window.file.getFile()).arrayBuffer())]"


@pytest.fixture
def one_sentence(tmp_path: Path) -> Path:
    return write_speech(tmp_path / "one.wav", [("silence", 3), ("voice", 1.6), ("silence", 30)])


async def hold_conversation(call: CallPage, *texts: str) -> str:
    """Type some sentences, have them answered, hang up, and return the conversation's id."""
    await call.start()
    for text in texts:
        await call.type(text)
        await call.wait_for("speaking")
        await call.wait_for("listening", timeout_s=30)
    conversation_id: str = await call.page.evaluate("() => window.avatar.conversationId")
    await call.page.click("#end")
    return conversation_id


class TestHistory:
    async def test_is_found_by_a_chinese_word_and_heard_again(self, open_call: OpenCall, one_sentence: Path) -> None:
        call = await open_call(microphone=one_sentence, user="bob")
        page = call.page
        await call.start()
        await call.wait_for("hearing")
        await call.wait_for("speaking")
        await call.wait_for("listening", timeout_s=30)
        await call.type("我想去鼓浪嶼看海")
        await call.wait_for("speaking")
        await call.wait_for("listening", timeout_s=30)
        await page.click("#end")

        await page.goto(f"{call.url}/history/")
        await page.fill("#q", "浪嶼")
        await page.press("#q", "Enter")
        await expect(page.locator(".entry")).to_have_count(1)
        await expect(page.locator(".entry mark")).to_have_text("浪嶼")
        await page.click(".entry")

        # Both sides: the user's sentence over the microphone, and the answer to it.
        for place in (".said.is-user .player", ".said.is-avatar .player"):
            player = page.locator(place).first
            await player.locator(".player-play").click()
            await expect(player.locator(".player-play")).to_have_attribute("aria-pressed", "true")
            await expect(player.locator(".player-wave")).not_to_have_attribute("aria-valuenow", "0")
            await player.locator(".player-play").click()
            await expect(player.locator(".player-play")).to_have_attribute("aria-pressed", "false")
        assert call.problems == []

    async def test_plays_all_of_it_in_turn(self, open_call: OpenCall) -> None:
        call = await open_call()
        conversation_id = await hold_conversation(call, "一", "二")
        page = call.page
        await page.goto(f"{call.url}/history/{conversation_id}/")
        await page.select_option("#pace", "2")

        await page.click("#play-all")

        await expect(page.locator(".said.is-playing")).to_contain_text("一")
        await expect(page.locator(".said.is-playing")).to_contain_text("二", timeout=20_000)
        await expect(page.locator(".said.is-playing")).to_have_count(0, timeout=20_000)
        await expect(page.locator("#play-all")).to_have_attribute("aria-pressed", "false")
        assert call.problems == []

    async def test_of_great_length_shows_earlier_turns_on_demand(self, open_call: OpenCall, fake_stack: Stack) -> None:
        call = await open_call()
        conversation_id = await hold_conversation(call, "一", "二")
        page = call.page
        # Long before that, much else.
        code = (
            "from conversations.models import Turn",
            f"turns = Turn.objects.filter(conversation={conversation_id!r}).order_by('-sequence')",
            "for turn in turns: turn.sequence += 150; turn.save()",
            "Turn.objects.bulk_create(Turn(conversation_id=turn.conversation_id, sequence=number, speaker='user',"
            " text=f'第{number}句') for number in range(1, 151))",
        )
        await asyncio.to_thread(fake_stack.manage, "shell", "--no-imports", "--command", "\n".join(code))
        await page.goto(f"{call.url}/history/{conversation_id}/")
        turns = page.locator(".said")
        await expect(turns).to_have_count(100)
        await expect(turns.first).to_contain_text("第55句")

        await page.click("#earlier")

        await expect(turns).to_have_count(154)
        await expect(turns.first).to_contain_text("第1句")
        await expect(page.locator("#earlier")).to_have_count(0)
        # What was put in can be used like the rest, and what was there goes on.
        await turns.first.locator(".said-edit").click()
        await expect(turns.first.locator(".correction textarea")).to_have_value("第1句")
        await page.click("#play-all")
        await expect(page.locator(".said.is-playing")).to_contain_text("一")
        await expect(page.locator(".said.is-playing")).to_contain_text("二", timeout=20_000)
        assert await call.find_overflow() == []
        await page.goto(f"{call.url}/c/{conversation_id}/")
        await expect(page.locator(".turn")).to_have_count(100)
        await page.click(f'.turns-earlier a[href="/history/{conversation_id}/"]')
        await expect(turns).to_have_count(100)
        assert call.problems == []

    async def test_is_corrected_and_answered_anew(self, open_call: OpenCall) -> None:
        call = await open_call()
        conversation_id = await hold_conversation(call, "我想吃牛肉面線")
        page = call.page
        await page.goto(f"{call.url}/history/{conversation_id}/")
        await page.click(".said-edit")
        await page.fill(".correction textarea", "我想吃牛肉麵線")

        await page.click('.correction [name="again"]')

        await page.wait_for_url(f"**/c/{conversation_id}/**")
        await expect(call.user_turns).to_have_text(["我想吃牛肉麵線"])
        await expect(call.replies.last).to_contain_text("我聽到你說我想吃牛肉麵線", timeout=20_000)
        await call.wait_for("typing", "listening", timeout_s=30)
        await page.goto(f"{call.url}/history/{conversation_id}/")
        await expect(page.locator(".said-heard:visible")).to_contain_text("我想吃牛肉面線")
        await expect(page.locator(".said.is-superseded")).to_contain_text("我聽到你說我想吃牛肉面線")
        assert call.problems == []

    async def test_is_corrected_during_the_call(self, open_call: OpenCall) -> None:
        call = await open_call()
        await call.start()
        await call.type("我姓成")
        await call.wait_for("speaking")
        await call.wait_for("listening", timeout_s=30)
        turn = call.page.locator(".turn.is-user")
        await turn.hover()
        await turn.locator(".turn-edit").click()
        await turn.locator("textarea").fill("我姓程")

        await turn.locator(".turn-correction .button:not(.is-secondary)").click()

        await expect(turn.locator(".turn-text")).to_have_text("我姓程")
        await expect(turn.locator(".turn-heard")).to_contain_text("我姓成")
        await expect(call.replies.last).to_contain_text("我聽到你說我姓程", timeout=20_000)
        await expect(call.page.locator(".turn.is-superseded")).to_have_count(1)
        assert call.problems == []

    async def test_is_renamed_and_pinned(self, open_call: OpenCall) -> None:
        call = await open_call()
        conversation_id = await hold_conversation(call, "三")
        page = call.page
        await page.goto(f"{call.url}/history/{conversation_id}/")
        menu = page.locator(".conversation-header summary")

        await menu.click()
        await page.click("#rename")
        await page.fill("#title", "晚餐的主意")
        await page.press("#title", "Enter")
        await expect(page.locator("#conversation-title")).to_have_text("晚餐的主意")
        await menu.click()
        await page.click("#pin")
        await expect(page.locator("#pin")).to_have_attribute("aria-pressed", "true")

        await page.goto(f"{call.url}/history/?pinned=1")
        await expect(page.locator(".entry-title")).to_contain_text(["晚餐的主意"])
        assert call.problems == []

    async def test_is_taken_along_and_deleted_with_everything(self, open_call: OpenCall, fake_stack: Stack) -> None:
        call = await open_call()
        conversation_id = await hold_conversation(call, "帶走這句話")
        page = call.page
        await page.goto(f"{call.url}/history/{conversation_id}/")
        menu = page.locator(".conversation-header summary")
        await menu.click()
        await page.evaluate(LEAVE_IT_TO_THE_BROWSER)
        async with page.expect_download() as downloading:
            await page.click(".conversation-header [data-export]")
        downloaded = await (await downloading.value).path()
        archive = zipfile.ZipFile(io.BytesIO(await asyncio.to_thread(Path(downloaded).read_bytes)))
        names = archive.namelist()
        written = json.loads(archive.read(next(name for name in names if name.endswith(".json"))))
        assert "帶走這句話" in json.dumps(written, ensure_ascii=False)
        assert any(name.endswith(".ogg") for name in names)
        kept = [path for path in fake_stack.data_dir.rglob(f"*{conversation_id}*/*") if path.is_file()]
        assert kept

        await menu.click()
        await page.click('.conversation-header [data-dialog="delete-dialog"]')
        await page.click("#delete")

        await page.wait_for_url("**/history/")
        assert [path for path in kept if path.exists()] == []
        response = await page.goto(f"{call.url}/history/{conversation_id}/")
        assert response is not None
        assert response.status == 404

    async def test_is_written_into_the_file_that_was_chosen(self, open_call: OpenCall) -> None:
        call = await open_call()
        conversation_id = await hold_conversation(call, "寫進檔案")
        page = call.page
        await page.goto(f"{call.url}/history/{conversation_id}/")
        await page.evaluate(CHOOSE_A_FILE)

        await page.locator(".conversation-header summary").click()
        await page.click(".conversation-header [data-export]")

        await page.wait_for_function("() => window.furthest > 0.5")
        await expect(page.locator("#transfer")).to_be_hidden()
        written = bytes(await page.evaluate(READ_THE_FILE))
        names = zipfile.ZipFile(io.BytesIO(written)).namelist()
        assert any(name.endswith("conversation.md") for name in names)
        assert call.problems == []

    @pytest.mark.parametrize("way", ["file", "browser"])
    async def test_that_is_gone_is_not_taken_along(self, open_call: OpenCall, way: str) -> None:
        call = await open_call()
        conversation_id = await hold_conversation(call, "不見了")
        page = call.page
        await page.goto(f"{call.url}/history/{conversation_id}/")
        await page.evaluate(CHOOSE_A_FILE if way == "file" else LEAVE_IT_TO_THE_BROWSER)
        await page.evaluate(
            """async (url) => (await import("/static/js/api.js")).call("DELETE", url)""",
            f"/api/conversations/{conversation_id}",
        )

        await page.locator(".conversation-header summary").click()
        await page.click(".conversation-header [data-export]")

        await expect(page.locator("#notice-text")).to_contain_text("可能已被刪除，其他對話都還在")
        await expect(page.locator("#transfer")).to_be_hidden()

    async def test_several_are_deleted_and_the_others_stay(self, open_call: OpenCall) -> None:
        call = await open_call()
        page = call.page
        ids = []
        for text in ("甲甲", "乙乙", "丙丙"):
            await page.goto(call.url)
            await expect(page.locator("#start")).to_be_enabled()
            ids.append(await hold_conversation(call, text))
        await page.goto(f"{call.url}/history/")
        await page.click(".entries-header summary")
        await page.click("#choose")
        await expect(page.locator("#chosen-delete")).to_be_disabled()
        for conversation_id in ids[:2]:
            await page.check(f'.entry-choice input[value="{conversation_id}"]')
        await page.evaluate(LEAVE_IT_TO_THE_BROWSER)
        async with page.expect_download() as downloading:
            await page.click("#chosen-export")
        downloaded = await (await downloading.value).path()
        archive = zipfile.ZipFile(io.BytesIO(await asyncio.to_thread(Path(downloaded).read_bytes)))
        assert len([name for name in archive.namelist() if name.endswith("conversation.json")]) == 2

        await page.click("#chosen-delete")
        async with page.expect_navigation():
            await page.click("#delete-chosen")

        for conversation_id in ids[:2]:
            await expect(page.locator(f'[value="{conversation_id}"]')).to_have_count(0)
        await expect(page.locator(f'[value="{ids[2]}"]')).to_have_count(1)
        assert call.problems == []

    async def test_is_nobody_elses(self, open_call: OpenCall) -> None:
        call = await open_call()
        conversation_id = await hold_conversation(call, "秘密")

        stranger = await open_call(user="bob")
        response = await stranger.page.goto(f"{stranger.url}/history/{conversation_id}/")

        assert response is not None
        assert response.status == 404

    @pytest.mark.parametrize("locale", ["zh-TW", "en-US"])
    async def test_fits_a_phone(self, open_call: OpenCall, locale: str) -> None:
        call = await open_call(locale=locale, viewport=PHONE, has_touch=True)
        conversation_id = await hold_conversation(call, "四")

        for path in ("/history/", "/history/?q=四", f"/history/{conversation_id}/", "/history/?q=沒有這回事"):
            await call.page.goto(call.url + path)
            assert await call.find_overflow() == []
            assert await call.find_small_targets() == []
            assert await call.find_nameless_controls() == []


class TestUnkept:
    async def test_leaves_nothing(self, open_call: OpenCall, fake_stack: Stack) -> None:
        call = await open_call(user="bob")
        page = call.page
        await page.check("#keeps-nothing", force=True)
        await call.start()
        await expect(page.locator("#unkept")).to_be_visible()

        await call.type("不要記住這句話")
        await call.wait_for("speaking")
        await call.wait_for("listening", timeout_s=30)

        await expect(call.replies).to_contain_text(["我聽到你說不要記住這句話"])
        assert page.url == f"{call.url}/"
        await page.goto(f"{call.url}/history/?q=不要記住")
        await expect(page.locator(".entry")).to_have_count(0)
        assert call.problems == []

    async def test_leaves_nothing_of_what_is_said_after_it_is_chosen(self, open_call: OpenCall) -> None:
        call = await open_call(user="bob")
        page = call.page
        await call.start()
        await call.type("這句話可以留著")
        await expect(call.replies).to_contain_text(["我聽到你說這句話可以留著"])
        await call.wait_for("listening", timeout_s=30)
        kept_url = page.url
        await page.click("#end")

        await page.check("#keeps-nothing", force=True)
        await expect(page.locator("#keeps-nothing-hint")).to_be_visible()
        await call.start()
        await expect(page.locator("#unkept")).to_be_visible()
        await call.type("這句話千萬別留")
        await expect(call.replies).to_contain_text(["我聽到你說這句話千萬別留"])
        await call.wait_for("listening", timeout_s=30)
        assert page.url == f"{call.url}/"
        await page.click("#end")

        # The other way round: what follows is kept, in a conversation of its own.
        await page.uncheck("#keeps-nothing", force=True)
        await call.start()
        await call.type("這一句又留著了")
        await expect(call.replies).to_contain_text(["我聽到你說這一句又留著了"])
        await call.wait_for("listening", timeout_s=30)
        assert page.url not in (kept_url, f"{call.url}/")

        for text, count in (("可以留著", 1), ("千萬別留", 0), ("又留著了", 1)):
            await page.goto(f"{call.url}/history/?q={text}")
            await expect(page.locator(".entry")).to_have_count(count)
        assert call.problems == []
