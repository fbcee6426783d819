"""The pages about voices in a real browser, with scripted engines and a real worker behind them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from tests.e2e.browser import PHONE, CallPage, VoicesPage, write_speech
from tests.e2e.conftest import OpenCall, OpenVoices
from tests.e2e.stack import Stack
from voices.fitting.search import HELD_OUT

pytestmark = [pytest.mark.browser, pytest.mark.timeout(360)]

MADE_MS = 60_000


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write_speech(tmp_path / "voice.wav", [("silence", 0.5), ("voice", 8), ("silence", 0.5)])


@pytest.fixture
def long_speech(tmp_path: Path) -> Path:
    """A microphone that hears somebody speak all the time."""
    return write_speech(tmp_path / "microphone.wav", [("voice", 40)])


async def wait_until_heard(page: Page) -> None:
    """Wait until the browser's own clock says that the sound is being played."""
    await page.wait_for_function("() => window.voices.preview.replay.playedS > 0.2", timeout=20_000)


async def fetch_voices(page: Page, scope: str) -> list[str]:
    names: list[str] = await page.evaluate(
        """async (scope) => (await (await fetch(`/api/voice-profiles?scope=${scope}&page_size=100`)).json())
          .results.map(({name}) => name)""",
        scope,
    )
    return names


@contextlib.asynccontextmanager
async def scripted(stack: Stack, **script: str) -> AsyncIterator[None]:
    """While this is open, the engines do something else than usual."""
    await asyncio.to_thread(stack.restart_inference, **script)
    try:
        yield
    finally:
        await asyncio.to_thread(stack.restart_inference)


async def give_style(stack: Stack, name: str) -> None:
    """Make a voice one that was brought closer, to a similarity of 0.91."""
    await asyncio.to_thread(
        stack.manage,
        *("shell", "--no-imports", "--command"),
        "from tests import factories\n"
        "from voices.models import VoiceProfile\n"
        f"profile = VoiceProfile.objects.get(name={name!r})\n"
        "VoiceProfile.objects.filter(pk=profile.pk).update(style=bytes(1024), fitting_similarity=0.91)\n"
        "factories.set_job(profile, 'fit', state='done')",
    )


def read_number(text: str | None) -> float:
    (number,) = re.findall(r"\d\.\d\d", text or "")
    return float(number)


class TestNewVoice:
    async def test_makes_a_voice_from_a_file(self, open_voices: OpenVoices, recording: Path) -> None:
        voices = await open_voices(path="/voices/new/")

        await voices.consent()
        await voices.choose_file(recording)
        await voices.page.fill("#name", "來自檔案")
        await voices.page.click("#send")

        await expect(voices.page.locator("#result")).to_be_visible(timeout=MADE_MS)
        await expect(voices.page.locator("#result-title")).to_have_text("「來自檔案」準備好了")
        await expect(voices.page.locator("#result .similarity-text")).to_have_text(re.compile(r"相似度 0\.\d\d"))
        await expect(voices.page.locator("#facts")).to_contain_text("說話")
        assert voices.problems == []

    async def test_makes_a_voice_from_the_microphone(self, open_voices: OpenVoices, long_speech: Path) -> None:
        voices = await open_voices(path="/voices/new/", microphone=long_speech)
        await voices.consent("permission")

        await voices.page.click('[data-do="record"]')
        await voices.page.wait_for_function("() => document.querySelector('.timer').textContent >= '0:05'")
        await voices.page.click('[data-do="record"]')

        await expect(voices.page.locator(".taken-name")).to_have_text(re.compile("錄音，5"))
        play = voices.page.locator('.taken [data-do="play"]')
        await play.click()
        await expect(play).to_have_attribute("aria-pressed", "true")
        await voices.page.fill("#name", "來自麥克風")
        await voices.page.click("#send")
        await expect(voices.page.locator("#result")).to_be_visible(timeout=MADE_MS)
        assert voices.problems == []

    async def test_takes_a_file_that_is_dropped(self, open_voices: OpenVoices) -> None:
        voices = await open_voices(path="/voices/new/")
        await voices.consent()
        data = await voices.page.evaluate_handle(
            """() => { const data = new DataTransfer();
              data.items.add(new File(["some sound"], "dropped.wav", {type: "audio/wav"})); return data; }"""
        )

        for kind in ("dragenter", "dragover", "drop"):
            await voices.page.dispatch_event(".recording-input", kind, {"dataTransfer": data})

        await expect(voices.page.locator(".taken-name")).to_have_text("dropped.wav")

    async def test_goes_on_after_a_reload(self, open_voices: OpenVoices, recording: Path, fake_stack: Stack) -> None:
        voices = await open_voices(path="/voices/new/")
        await asyncio.to_thread(fake_stack.stop, "worker")
        try:
            await voices.consent()
            await voices.choose_file(recording)
            await voices.page.fill("#name", "慢慢來")
            await voices.page.click("#send")
            step = voices.page.locator('#build-progress-steps [aria-current="step"]')
            await expect(step).to_have_text("排隊中")

            await voices.page.reload()

            await expect(step).to_have_text("排隊中")
            await expect(voices.page.locator("#result-title")).to_have_text("慢慢來")
        finally:
            fake_stack.start("worker")
        await expect(voices.page.locator("#result")).to_be_visible(timeout=MADE_MS)
        assert voices.problems == []

    async def test_shows_how_much_has_been_sent_and_can_be_stopped(
        self, open_voices: OpenVoices, tmp_path: Path
    ) -> None:
        voices = await open_voices(path="/voices/new/")
        long = write_speech(tmp_path / "long.wav", [("voice", 40)])
        session = await voices.page.context.new_cdp_session(voices.page)
        await session.send(
            "Network.emulateNetworkConditions",
            {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 400_000},
        )
        await voices.consent()
        await voices.choose_file(long)
        await voices.page.fill("#name", "不送了")
        await voices.page.click("#send")
        await expect(voices.page.locator("#sending-text")).to_have_text(
            re.compile(r"已送出 .+，共 3\.7\sMB · [1-9]\d?%")
        )

        await voices.page.click("#cancel-sending")

        await expect(voices.page.locator("#notice")).to_contain_text("已停止傳送")
        await expect(voices.page.locator(".taken-name")).to_have_text("long.wav")
        assert "不送了" not in await fetch_voices(voices.page, "own")

    async def test_asks_whose_voice_it_is_first(self, open_voices: OpenVoices) -> None:
        voices = await open_voices(path="/voices/new/")

        await expect(voices.page.locator(".choice")).to_have_count(2)

        await expect(voices.page.locator("#give-consent")).to_be_disabled()
        await expect(voices.page.locator("#step-recording")).to_be_hidden()


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "content", "sentence"),
        [
            ("page.wav", b"<!doctype html><title>no sound</title>" * 40, "這不是可以讀取的錄音"),
            ("list.m3u8", b"#EXTM3U\nhttp://127.0.0.1/a.wav\n", "這不是可以讀取的錄音"),
            ("silence.wav", [("silence", 6)], "錄音裡沒有聲音"),
            ("short.wav", [("silence", 2), ("voice", 1), ("silence", 1)], "說話的時間太短"),
        ],
    )
    async def test_says_why_and_keeps_nothing(
        self,
        open_voices: OpenVoices,
        tmp_path: Path,
        name: str,
        content: bytes | list[tuple[str, float]],
        sentence: str,
    ) -> None:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            write_speech(path, content)
        voices = await open_voices(path="/voices/new/")
        await voices.consent()
        await voices.choose_file(path)
        await voices.page.fill("#name", "不該留下")

        await voices.page.click("#send")

        await expect(voices.page.locator("#notice-title")).to_have_text("無法使用這段錄音")
        await expect(voices.page.locator("#notice-text")).to_contain_text(sentence)
        await expect(voices.page.locator("#send")).to_be_enabled()
        assert "不該留下" not in await fetch_voices(voices.page, "own")

    async def test_does_not_send_what_is_too_large(self, open_voices: OpenVoices, tmp_path: Path) -> None:
        large = tmp_path / "large.wav"
        with large.open("wb") as file:
            file.truncate(21 * 1024 * 1024)
        voices = await open_voices(path="/voices/new/")
        await voices.consent()

        await voices.choose_file(large)

        await expect(voices.page.locator(".input-problem")).to_contain_text("21.0 MB，最多只能 20.0 MB")
        await expect(voices.page.locator("#send")).to_be_disabled()

    async def test_says_that_an_archive_is_too_large_while_it_is_sent(
        self, open_voices: OpenVoices, tmp_path: Path
    ) -> None:
        large = tmp_path / "voice.zip"
        with large.open("wb") as file:
            # More than the server reads of it.
            file.truncate(300 * 1024 * 1024)
        voices = await open_voices(path="/voices/new/")
        await voices.consent()
        await voices.choose_way("import")
        await voices.page.set_input_files('[name="archive"]', large)

        await voices.page.click("#send")

        await expect(voices.page.locator("#notice-text")).to_contain_text("檔案超過 100 MB", timeout=30_000)
        await expect(voices.page.locator("#send")).to_be_enabled()

    async def test_explains_a_blocked_microphone(self, open_voices: OpenVoices) -> None:
        voices = await open_voices(path="/voices/new/", may_listen=False)
        await voices.consent()

        await voices.page.click('[data-do="record"]')

        await expect(voices.page.locator("#notice")).to_contain_text("麥克風被封鎖了")
        await voices.page.locator("#notice").get_by_role("button", name="選擇檔案").click()
        await expect(voices.page.locator(".way-file")).to_be_visible()

    async def test_keeps_a_recording_that_is_too_short(self, open_voices: OpenVoices, long_speech: Path) -> None:
        voices = await open_voices(path="/voices/new/", microphone=long_speech)
        await voices.consent()
        await voices.page.click('[data-do="record"]')
        await expect(voices.page.locator(".timer")).to_have_text("0:01")

        await voices.page.click('[data-do="record"]')

        await expect(voices.page.locator(".input-problem")).to_contain_text("請至少說 3 秒")
        await expect(voices.page.locator("#send")).to_be_disabled()


class TestList:
    async def test_offers_the_voices_that_come_with_it(self, open_voices: OpenVoices) -> None:
        voices = await open_voices(user="bob")

        await expect(voices.page.locator("#own-empty")).to_be_visible()
        assert await voices.page.locator("#stock-zh .card").count() >= 4
        assert await voices.page.locator("#stock-en .card").count() >= 4
        assert voices.problems == []

    async def test_speaks_a_sentence_of_ones_own(self, open_voices: OpenVoices) -> None:
        voices = await open_voices()
        listen = voices.card("曉曉").locator(".listen")
        await voices.page.fill("#sentence", "這一句話是我自己寫的，慢慢聽就好。")
        async with voices.page.expect_response(re.compile("/preview$")) as answer:
            await listen.click()

        await wait_until_heard(voices.page)

        assert (await answer.value).request.post_data_json["text"] == "這一句話是我自己寫的，慢慢聽就好。"
        await expect(listen).to_have_attribute("aria-pressed", "true")
        await expect(voices.page.locator("#listening")).to_have_text("播放中。這是合成語音。")
        await expect(listen).to_have_attribute("aria-pressed", "false", timeout=20_000)
        assert voices.problems == []

    async def test_chooses_a_voice_and_lets_it_be_chosen_again(self, open_voices: OpenVoices) -> None:
        voices = await open_voices()
        use = voices.card("雲希").locator('[data-do="use"]')

        await use.click()

        await expect(use).to_have_attribute("aria-pressed", "true")
        await expect(voices.page.locator("#current")).to_have_text("AVATAR 用「雲希」回答")
        await voices.page.reload()
        await expect(use).to_have_attribute("aria-pressed", "true")
        await voices.page.click("#use-automatic")
        await expect(voices.page.locator("#current")).to_have_text("AVATAR 依語言選聲音")
        assert voices.problems == []

    async def test_renames_and_deletes(self, open_voices: OpenVoices, recording: Path) -> None:
        voices = await open_voices()
        await voices.make_voice("舊名字", recording)
        await voices.page.goto(f"{voices.url}/voices/")
        await voices.choose_from_menu("舊名字", "rename")
        await voices.page.fill("#rename-name", "新名字")
        await voices.page.click("#rename-dialog .button:not(.is-secondary)")
        await expect(voices.card("新名字")).to_be_visible()

        await voices.choose_from_menu("新名字", "delete")
        await expect(voices.page.locator("#delete-dialog")).to_contain_text("無法復原")
        await voices.page.click("#delete-dialog [data-close]")
        await expect(voices.card("新名字")).to_be_visible()
        await voices.choose_from_menu("新名字", "delete")
        await voices.page.click("#delete-dialog .is-danger")

        await expect(voices.card("新名字")).to_have_count(0)
        assert "新名字" not in await fetch_voices(voices.page, "own")
        assert voices.problems == []

    async def test_brings_an_exported_voice_back(
        self, open_voices: OpenVoices, recording: Path, tmp_path: Path
    ) -> None:
        voices = await open_voices()
        await voices.make_voice("帶著走", recording)
        await voices.page.goto(f"{voices.url}/voices/")
        async with voices.page.expect_download() as download:
            await voices.choose_from_menu("帶著走", "export")
        archive = tmp_path / "voice.zip"
        await (await download.value).save_as(archive)
        await voices.page.goto(f"{voices.url}/voices/new/")
        await voices.consent()
        await voices.choose_way("import")
        await voices.page.set_input_files('[name="archive"]', archive)

        await voices.page.click("#send")

        await expect(voices.page.locator("#result")).to_be_visible(timeout=MADE_MS)
        assert (await fetch_voices(voices.page, "own")).count("帶著走") == 2
        assert voices.problems == []

    async def test_says_when_it_is_offline_and_comes_back(self, open_voices: OpenVoices) -> None:
        voices = await open_voices()
        await expect(voices.card("曉曉")).to_be_visible()
        await voices.page.context.set_offline(True)

        await voices.card("曉曉").locator(".listen").click()

        await expect(voices.page.locator("#notice-title")).to_have_text("目前沒有網路")
        await voices.page.context.set_offline(False)
        await expect(voices.page.locator("#notice")).to_be_hidden()
        await expect(voices.card("曉曉")).to_be_visible()


class TestDetail:
    async def test_shows_what_was_recorded_and_with_whose_consent(
        self, open_voices: OpenVoices, recording: Path
    ) -> None:
        voices = await open_voices()
        await voices.make_voice("細節", recording)
        await voices.page.click("#to-detail")

        play = voices.page.locator(".recording .listen")
        await play.click()
        await wait_until_heard(voices.page)

        await expect(play).to_have_attribute("aria-pressed", "true")
        await expect(voices.page.locator(".recording-transcript")).to_have_text("你好")
        await expect(voices.page.locator(".consent-text")).to_contain_text("這是我自己的聲音")
        assert voices.problems == []

    async def test_takes_another_recording(self, open_voices: OpenVoices, recording: Path) -> None:
        voices = await open_voices()
        await voices.make_voice("兩段", recording)
        await voices.page.click("#to-detail")
        await expect(voices.page.locator(".recording")).to_have_count(1)
        await voices.page.click("#adding summary")
        await voices.choose_file(recording)
        await expect(voices.page.locator(".choice small").first).to_contain_text("這是我自己的聲音")
        await expect(voices.page.locator("#send")).to_be_disabled()
        await voices.page.check('[name="consent_attestation"][value="permission"]')

        await voices.page.click("#send")

        await expect(voices.page.locator(".recording")).to_have_count(2)
        await expect(voices.page.locator('main[data-state="ready"]')).to_be_visible(timeout=MADE_MS)
        await voices.page.locator('.recording [data-do="delete-recording"]').first.click()
        await voices.page.click("#delete-recording-dialog .is-danger")
        await expect(voices.page.locator(".recording")).to_have_count(1)
        await voices.page.reload()
        await expect(voices.page.locator(".consent-line")).to_have_count(2)
        assert voices.problems == []

    async def test_brings_a_voice_closer(self, open_voices: OpenVoices, recording: Path, fake_stack: Stack) -> None:
        voices = await open_voices()
        await voices.make_voice("更像", recording)
        await voices.page.click("#to-detail")
        similarity = voices.page.locator("#similarity .similarity-text")
        text = voices.page.locator("#fitting-text")
        await expect(similarity).to_have_text(re.compile(r"^相似度 0\.\d\d$"))
        before = read_number(await similarity.text_content())

        # First the voice as it is says the sentences that judge it, then what was found.
        async with scripted(fake_stack, AVATAR_FAKE_TRANSCRIPTS="|".join(HELD_OUT["zh"] * 2)):
            await voices.page.click("#fit")
            await expect(text).to_have_text(re.compile(r"^調整中 · [1-9]\d?%$"))
            await expect(voices.page.locator("#fitting-bar")).to_have_attribute("value", re.compile(r"^0\.\d+$"))
            await expect(text).to_have_text(re.compile("^現在更像了"), timeout=MADE_MS)

        await expect(similarity).to_have_text(re.compile(r"^相似度 0\.\d\d，已調整$"))
        shown = await similarity.text_content()
        assert read_number(shown) > before
        await expect(text).to_have_text(f"現在更像了：從 {before:.2f} 到 {read_number(shown):.2f}。")
        await expect(voices.page.locator("#fitting-bar")).to_be_hidden()
        await voices.page.reload()
        await expect(similarity).to_have_text(shown or "")
        await expect(voices.page.locator("#about")).to_contain_text("近似聲音")
        await expect(voices.page.locator("#similarity")).to_contain_text("不是複製")
        await expect(voices.page.locator("#fit")).to_have_text("再試著更像一點")
        assert voices.problems == []

    async def test_leaves_a_voice_as_it_was_when_the_closer_one_is_not_understood(
        self, open_voices: OpenVoices, recording: Path, fake_stack: Stack
    ) -> None:
        voices = await open_voices()
        await voices.make_voice("聽不懂", recording)
        await voices.page.click("#to-detail")
        similarity = voices.page.locator("#similarity .similarity-text")
        await expect(similarity).to_have_text(re.compile(r"^相似度 0\.\d\d$"))
        shown = await similarity.text_content()

        async with scripted(fake_stack, AVATAR_FAKE_TRANSCRIPTS="|".join(HELD_OUT["zh"])):
            await voices.page.click("#fit")
            outcome = voices.page.locator("#fitting-text")
            await expect(outcome).to_have_text("沒有找到更像的版本，聲音維持原樣。", timeout=MADE_MS)

        await expect(similarity).to_have_text(shown or "")
        assert voices.problems == []

    async def test_stops_bringing_a_voice_closer(
        self, open_voices: OpenVoices, recording: Path, fake_stack: Stack
    ) -> None:
        voices = await open_voices()
        await voices.make_voice("不用了", recording)
        await give_style(fake_stack, "不用了")
        await voices.page.click("#to-detail")
        similarity = voices.page.locator("#similarity .similarity-text")
        await expect(similarity).to_have_text("相似度 0.91，已調整")
        await asyncio.to_thread(fake_stack.stop, "worker")
        try:
            await voices.page.click("#fit")
            await expect(voices.page.locator("#fitting-text")).to_have_text("等待空檔")

            await voices.page.click("#cancel-fit")

            await expect(voices.page.locator("#fitting-text")).to_have_text("已停止，聲音維持原樣。")
            await expect(similarity).to_have_text("相似度 0.91，已調整")
            await expect(voices.page.locator("#fit")).to_be_visible()
        finally:
            fake_stack.start("worker")
        assert voices.problems == []

    async def test_says_when_it_is_heard_in_less_than_the_quality_that_was_chosen(
        self, open_voices: OpenVoices, recording: Path, fake_stack: Stack
    ) -> None:
        voices = await open_voices()
        await voices.make_voice("兩種品質", recording)
        await expect(voices.page.locator("#qualities")).to_have_count(0)
        await give_style(fake_stack, "兩種品質")
        await voices.page.click("#to-detail")
        status = voices.page.locator("#listening")
        hear = voices.page.locator("#hear")

        async with scripted(fake_stack, AVATAR_FAKE_SHORT_OF_MEMORY="yes"):
            await voices.page.locator("#qualities label", has_text="音質好一點").click()
            await hear.click()
            await expect(status).to_have_text("高品質暫時無法使用，這是快速版。 播放中。這是合成語音。")
            await wait_until_heard(voices.page)
            await hear.click()

        # The same sentence again, now that there is memory.
        await hear.click()
        await expect(status).to_have_text("播放中。這是合成語音。")
        await wait_until_heard(voices.page)
        assert voices.problems == []

    async def test_a_stranger_finds_nothing(self, open_voices: OpenVoices, recording: Path) -> None:
        alices = await open_voices()
        await alices.make_voice("只給我", recording)
        address = await alices.page.get_attribute("#to-detail", "href")
        bobs = await open_voices(user="bob")

        response = await bobs.page.goto(f"{bobs.url}{address}")

        assert response is not None
        assert response.status == 404


class TestSharing:
    @pytest.fixture
    async def shared(self, open_voices: OpenVoices, recording: Path) -> AsyncIterator[VoicesPage]:
        """Alice's list with a voice on it, 給大家, that she has shared; gone when the test is over."""
        alices = await open_voices()
        await alices.make_voice("給大家", recording)
        await alices.page.goto(f"{alices.url}/voices/")
        try:
            await alices.choose_from_menu("給大家", "share")
            await expect(alices.page.locator("#share-text")).to_contain_text("每個人都可以讓 AVATAR 用這個聲音回答")
            await alices.page.click("#share-dialog [data-close]")
            await expect(alices.card("給大家").locator(".card-facts")).not_to_contain_text("共用")
            await alices.choose_from_menu("給大家", "share")
            await alices.page.click("#share-dialog .button:not(.is-secondary)")
            await expect(alices.card("給大家").locator(".card-facts")).to_contain_text("共用")
            yield alices
        finally:
            await alices.choose_from_menu("給大家", "delete")
            await alices.page.click("#delete-dialog .is-danger")
            await expect(alices.card("給大家")).to_have_count(0)

    async def test_lets_everybody_hear_and_choose_it(self, shared: VoicesPage, open_voices: OpenVoices) -> None:
        bobs = await open_voices(user="bob")
        card = bobs.page.locator("#shared").locator(bobs.card("給大家"))

        await card.locator(".listen").click()
        await wait_until_heard(bobs.page)
        await card.locator('[data-do="use"]').click()

        await expect(bobs.page.locator("#current")).to_have_text("AVATAR 用「給大家」回答")
        await bobs.page.reload()
        await expect(card.locator('[data-do="use"]')).to_have_attribute("aria-pressed", "true")
        assert bobs.problems == []

    async def test_lets_nobody_else_change_it_or_hear_what_was_recorded(
        self, shared: VoicesPage, open_voices: OpenVoices
    ) -> None:
        address = await shared.card("給大家").locator(".card-title").get_attribute("href") or ""
        voice_id = address.strip("/").rpartition("/")[2]
        api = f"/api/voice-profiles/{voice_id}"
        recording_id = await shared.page.evaluate(
            "async (api) => (await (await fetch(api)).json()).recordings[0].id", api
        )
        bobs = await open_voices(user="bob")
        await expect(bobs.card("給大家")).to_be_visible()

        await expect(bobs.card("給大家").locator(".card-menu")).to_have_count(0)
        await bobs.page.goto(f"{bobs.url}{address}")
        await expect(bobs.page.locator("#hear")).to_be_enabled()
        for place in ("#more", "#similarity", "#recordings", "#adding", ".consent-text"):
            await expect(bobs.page.locator(place)).to_have_count(0)
        assert bobs.problems == []

        assert await shared.ask("GET", f"{api}/recordings/{recording_id}/audio") == 200
        assert await bobs.ask("GET", f"{api}/recordings/{recording_id}/audio") == 404
        assert await bobs.ask("GET", f"{api}/audio") == 404
        assert await bobs.ask("GET", f"{api}/export") == 404
        assert await bobs.ask("PATCH", api, name="是我的了") == 404
        assert await bobs.ask("PATCH", api, is_shared=False) == 404
        assert await bobs.ask("POST", f"{api}/fit") == 404
        assert await bobs.ask("DELETE", api) == 404
        told = await bobs.page.evaluate("async (api) => (await fetch(api)).json()", api)
        assert (told["name"], told["is_shared"], told["recordings"]) == ("給大家", True, [])

    async def test_is_taken_back_from_those_who_chose_it(self, shared: VoicesPage, open_voices: OpenVoices) -> None:
        address = await shared.card("給大家").locator(".card-title").get_attribute("href")
        bobs = await open_voices(user="bob")
        await bobs.card("給大家").locator('[data-do="use"]').click()
        await expect(bobs.page.locator("#current")).to_have_text("AVATAR 用「給大家」回答")

        await shared.choose_from_menu("給大家", "share")
        await expect(shared.card("給大家").locator(".card-facts")).not_to_contain_text("共用")

        await bobs.page.reload()
        await expect(bobs.page.locator('main[data-phase="ready"]')).to_be_visible()
        await expect(bobs.page.locator("#current")).to_have_text("AVATAR 依語言選聲音")
        await expect(bobs.page.locator("#shared-shelf")).to_be_hidden()
        await expect(bobs.card("給大家")).to_have_count(0)
        assert bobs.problems == []
        response = await bobs.page.goto(f"{bobs.url}{address}")
        assert response is not None
        assert response.status == 404

    async def test_may_be_taken_back_while_the_page_is_fetched(self, open_voices: OpenVoices) -> None:
        bobs = await open_voices(user="bob")
        chosen = {"voice_profile_id": "00000000-0000-4000-8000-000000000001", "quality": "fast"}
        await bobs.page.route("**/api/voice-default", lambda route: route.fulfill(json=chosen))

        await bobs.page.reload()

        await expect(bobs.page.locator('main[data-phase="ready"]')).to_be_visible()
        await expect(bobs.page.locator("#current")).to_have_text("AVATAR 依語言選聲音")
        await expect(bobs.page.locator("#notice")).to_be_hidden()

    async def test_is_taken_back_by_whoever_owns_it(
        self, open_voices: OpenVoices, recording: Path, fake_stack: Stack
    ) -> None:
        carols = await open_voices(user="carol")
        await carols.make_voice("不再分享", recording)
        await asyncio.to_thread(
            fake_stack.manage,
            *("shell", "--no-imports", "--command"),
            "from voices.models import VoiceProfile\n"
            "VoiceProfile.objects.filter(name='不再分享').update(is_shared=True)",
        )
        await carols.page.goto(f"{carols.url}/voices/")

        await carols.choose_from_menu("不再分享", "share")

        await expect(carols.card("不再分享").locator(".card-facts")).not_to_contain_text("共用")
        await carols.card("不再分享").locator("summary").click()
        await expect(carols.card("不再分享").locator('[data-do="share"]')).to_be_hidden()
        assert carols.problems == []

    async def test_is_for_operators(self, open_voices: OpenVoices, recording: Path) -> None:
        carols = await open_voices(user="carol")
        await carols.make_voice("我也想", recording)
        address = await carols.page.get_attribute("#to-detail", "href") or ""
        voice_id = address.strip("/").rpartition("/")[2]

        await carols.page.goto(f"{carols.url}/voices/")
        await carols.card("我也想").locator("summary").click()
        await expect(carols.card("我也想").locator('[data-do="rename"]')).to_be_visible()
        await expect(carols.card("我也想").locator('[data-do="share"]')).to_be_hidden()
        await carols.page.goto(f"{carols.url}{address}")
        await carols.page.click("#more summary")
        await expect(carols.page.locator('#more [data-do="rename"]')).to_be_enabled()
        await expect(carols.page.locator('#more [data-do="share"]')).to_be_hidden()

        assert await carols.ask("PATCH", f"/api/voice-profiles/{voice_id}", is_shared=True) == 403
        assert carols.problems == []


class TestInTheCall:
    async def test_says_when_an_answer_is_in_less_than_the_quality_that_was_chosen(
        self, open_call: OpenCall, fake_stack: Stack
    ) -> None:
        async with scripted(fake_stack, AVATAR_FAKE_SHORT_OF_MEMORY="yes"):
            call = await open_call(user="carol")
            fallback = call.page.locator(".turn.is-avatar .turn-fallback")
            await call.start()
            await call.type("隨便說說")
            await call.wait_for("speaking")
            await call.wait_for("listening", timeout_s=30)
            await expect(fallback).to_be_hidden()
            await self._choose_quality(call, "音質好一點")
            await call.type("好聽一點")
            await call.wait_for("speaking")
            await call.wait_for("listening", timeout_s=30)
            await expect(fallback.nth(1)).to_be_visible()
            await expect(fallback.nth(1)).to_have_text("高品質暫時無法使用，先用快速版")
            await expect(fallback.nth(0)).to_be_hidden()

        await call.wait_for("listening", timeout_s=30)
        await call.type("現在呢")
        await call.wait_for("speaking")
        await call.wait_for("listening", timeout_s=30)
        await expect(fallback).to_have_count(3)
        await expect(fallback.nth(2)).to_be_hidden()
        conversation_id = await call.page.evaluate("() => window.avatar.conversationId")
        await self._choose_quality(call, "回答快一點")
        await call.page.goto(f"{call.url}/history/{conversation_id}/")
        heads = call.page.locator(".said.is-avatar .said-head")
        await expect(heads).to_have_count(3)
        await expect(heads.nth(1)).not_to_contain_text("高品質")
        await expect(heads.nth(2)).to_contain_text("高品質")

    @staticmethod
    async def _choose_quality(call: CallPage, name: str) -> None:
        await call.page.click("#open-settings")
        async with call.page.expect_response(re.compile("/voice-default$")) as answer:
            await call.page.locator("#settings .segments label", has_text=name).click()
        assert (await answer.value).status == 204
        await call.page.keyboard.press("Escape")

    async def test_a_turn_outlives_the_voice_it_was_spoken_in(
        self, open_call: OpenCall, open_voices: OpenVoices, recording: Path
    ) -> None:
        voices = await open_voices()
        await voices.make_voice("會刪掉的", recording)
        await voices.page.goto(f"{voices.url}/voices/")
        await voices.card("會刪掉的").locator('[data-do="use"]').click()
        await expect(voices.page.locator("#current")).to_have_text("AVATAR 用「會刪掉的」回答")
        call = await open_call()
        await call.start()
        await call.type("用我的聲音說")
        await call.wait_for("speaking")
        await call.wait_for("listening", timeout_s=30)
        conversation_id = await call.page.evaluate("() => window.avatar.conversationId")
        await call.page.click("#end")
        await call.page.goto(f"{call.url}/history/{conversation_id}/")
        head = call.page.locator(".said.is-avatar .said-head")
        await expect(head).to_contain_text("會刪掉的 · 快速 · 合成語音")

        await voices.choose_from_menu("會刪掉的", "delete")
        await voices.page.click("#delete-dialog .is-danger")
        await expect(voices.card("會刪掉的")).to_have_count(0)

        await call.page.reload()
        await expect(head).to_contain_text("已刪除的聲音 · 快速 · 合成語音")
        await expect(call.page.locator("#conversation")).not_to_contain_text("會刪掉的")
        await expect(call.page.locator(".said.is-avatar .said-text")).to_contain_text("我聽到你說用我的聲音說")
        await call.page.goto(f"{call.url}/c/{conversation_id}/")
        await expect(call.page.locator(".turn.is-avatar .turn-synthetic")).to_have_text("已刪除的聲音 · 合成語音")
        assert call.problems == []
        assert voices.problems == []

    async def test_a_choice_in_the_middle_of_a_call_takes_effect_and_is_kept(self, open_call: OpenCall) -> None:
        call = await open_call(user="bob")
        await call.start()
        sheet = call.page.locator("#settings")

        await call.page.click("#voice")
        async with call.page.expect_response(re.compile("/default$")) as answer:
            await sheet.locator("label.voice", has_text="雲希").click()

        assert (await answer.value).status == 204
        await call.page.keyboard.press("Escape")
        await call.type("換個聲音")
        await call.wait_for("speaking")
        await call.wait_for("listening", timeout_s=30)
        await expect(call.page.locator(".turn.is-avatar .turn-synthetic")).to_have_text("合成語音")
        await call.page.reload()
        await expect(sheet.locator("label.voice", has_text="雲希").locator("input")).to_be_checked()
        await call.page.click("#open-settings")
        async with call.page.expect_response(re.compile("/voice-default$")):
            await sheet.locator("label.voice", has_text="自動").click()
        assert call.problems == []

    async def test_shows_ones_own_voices_with_their_state(
        self, open_call: OpenCall, open_voices: OpenVoices, recording: Path, fake_stack: Stack
    ) -> None:
        voices = await open_voices(path="/voices/new/")
        call = await open_call()
        await asyncio.to_thread(fake_stack.stop, "worker")
        try:
            await voices.consent()
            await voices.choose_file(recording)
            await voices.page.fill("#name", "還在做")
            await voices.page.click("#send")
            await expect(voices.page.locator("#build-progress")).to_be_visible()

            await call.page.click("#open-settings")

            option = call.page.locator("label.voice", has_text="還在做")
            await expect(option).to_contain_text("等待中")
            await expect(option.locator("input")).to_be_disabled()
        finally:
            fake_stack.start("worker")
        await expect(option.locator("input")).to_be_enabled(timeout=MADE_MS)
        assert call.problems == []


class TestLooks:
    @pytest.mark.parametrize("locale", ["zh-TW", "en-US"])
    async def test_fits_a_phone(self, open_voices: OpenVoices, recording: Path, locale: str) -> None:
        voices = await open_voices(locale=locale, viewport=PHONE, has_touch=True)
        await voices.make_voice("Supercalifragilisticexpialidocious" * 2, recording)
        await self._check(voices)

        for path in (await voices.page.get_attribute("#to-detail", "href"), "/voices/", "/voices/new/"):
            await voices.page.goto(f"{voices.url}{path}")
            await expect(self._settled(voices.page)).to_be_visible()
            await self._check(voices)
        await voices.consent()
        for way in ("record", "file", "import"):
            await voices.choose_way(way)
            await self._check(voices)

    @staticmethod
    def _settled(page: Page) -> Locator:
        return page.locator(".choice, .recording, #stock-en .card").first

    @staticmethod
    async def _check(voices: VoicesPage) -> None:
        assert await voices.find_overflow() == []
        assert await voices.find_small_targets() == []
        assert await voices.find_nameless_controls() == []

    async def test_works_with_the_keyboard_alone(self, open_voices: OpenVoices) -> None:
        voices = await open_voices(path="/voices/new/")
        await expect(voices.page.locator(".choice")).to_have_count(2)

        await voices.page.focus(".choice input")
        await voices.page.keyboard.press("Space")
        await voices.page.keyboard.press("Tab")
        await voices.page.keyboard.press("Enter")

        await expect(voices.page.locator("#step-recording")).to_be_focused()

    async def test_speaks_the_language_of_the_reader(self, open_voices: OpenVoices) -> None:
        voices = await open_voices(locale="en-US")

        await expect(voices.page.locator("h1")).to_have_text("Voices")
        await expect(voices.page.locator("#own-title")).to_have_text("My voices")
