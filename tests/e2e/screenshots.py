"""Take pictures of every page: both languages, two sizes, light and dark. `make screenshots`."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from playwright.async_api import BrowserContext, Page, async_playwright

from tests.e2e import browser
from tests.e2e.browser import CallPage
from tests.e2e.stack import ROOT, Stack

LOCALES = {"zh": "zh-TW", "en": "en-US"}
SIZES = {"phone": browser.PHONE, "desktop": browser.DESKTOP}
SCHEMES = ("dark", "light")
FADE_MS = 600  # the longest transition of the page, and then some
WORDS = {
    "zh": ("週末想去陽明山走走，有什麼建議？", "那要帶什麼東西？"),
    "en": ("I would like to go hiking on the weekend. Any ideas?", "What should I bring?"),
}


class Photographer:
    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder = folder
        self.prefix = prefix

    async def take(self, page: Page, name: str) -> None:
        await page.wait_for_timeout(FADE_MS)
        await page.screenshot(path=self.folder / f"{self.prefix}-{name}.png")


async def photograph_calm_pages(stack: Stack, context: BrowserContext, photographer: Photographer) -> CallPage:
    """What is there before anybody has spoken."""
    page = await context.new_page()
    await page.goto(f"{stack.url}/")
    await photographer.take(page, "login")
    await page.fill("#id_username", "alice")
    await page.fill("#id_password", "wrong")
    await page.click("main button")
    await photographer.take(page, "login-refused")
    await page.goto(f"{stack.url}/nothing-here")
    await photographer.take(page, "not-found")
    await page.close()
    call = await CallPage.open(context, stack.url)
    await photographer.take(call.page, "call-idle")
    return call


async def photograph_call(call: CallPage, photographer: Photographer, words: tuple[str, str]) -> None:
    page = call.page
    await page.click("#start")
    await call.wait_for("listening")
    await photographer.take(page, "call-listening")
    await call.wait_for("hearing")
    await photographer.take(page, "call-hearing")
    await call.wait_for("thinking")
    await photographer.take(page, "call-thinking")
    await call.wait_for("speaking")
    await photographer.take(page, "call-speaking")
    for text in words:
        await call.type(text)
        await call.wait_for("speaking")
    await photographer.take(page, "call-typing")
    await page.click("#stop")
    await call.wait_for("listening")
    await page.click("#keyboard")
    await page.click("#talk")
    await photographer.take(page, "call-muted")
    await page.click("#talk")
    await page.click("#open-settings")
    await photographer.take(page, "settings")
    await page.check('[name="shows_latency"]')
    await photographer.take(page, "settings-end")
    await page.keyboard.press("Escape")
    await photographer.take(page, "call-timings")
    await page.reload()
    await page.wait_for_selector("#start")
    await photographer.take(page, "call-continued")


async def photograph_trouble(call: CallPage, photographer: Photographer) -> None:
    """States that need something to go wrong; the page is told so, as its parts would tell it."""
    page = call.page
    await page.evaluate(
        """() => { navigator.mediaDevices.getUserMedia = async () => {
          throw new DOMException("", "NotAllowedError"); }; }"""
    )
    await page.click("#start")
    await photographer.take(page, "trouble-microphone")
    await page.click("#notice-actions button:last-child")
    await call.wait_for("typing")
    for name, code in (("reconnecting", 1006), ("full", 4429)):
        await page.evaluate("(code) => window.avatar.socket.ondropped({code})", code)
        await photographer.take(page, f"trouble-{name}")
    await page.evaluate("() => window.avatar.socket.onrefused(4401)")
    await photographer.take(page, "trouble-login")


async def photograph(stack: Stack, folder: Path, *, only: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        microphone = browser.write_speech(
            Path(temporary) / "voice.wav", [("silence", 4), ("voice", 2.5), ("silence", 1)]
        )
        async with async_playwright() as playwright:
            for language, locale in LOCALES.items():
                for size, viewport in SIZES.items():
                    for scheme in SCHEMES:
                        prefix = f"{size}-{scheme}-{language}"
                        if only not in prefix:
                            continue
                        started = await browser.launch(playwright, microphone=microphone)
                        context = await started.new_context(
                            locale=locale, viewport=viewport, color_scheme=scheme, device_scale_factor=1
                        )
                        photographer = Photographer(folder, prefix)
                        call = await photograph_calm_pages(stack, context, photographer)
                        await photograph_call(call, photographer, WORDS[language])
                        await photograph_trouble(call, photographer)
                        await started.close()
                        print(f"{prefix}: done", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "screenshots", help="folder for the pictures")
    parser.add_argument("--only", default="", help="part of a name, such as phone, dark-zh")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    pace = {"AVATAR_FAKE_FIRST_TOKEN_S": "1.5", "AVATAR_FAKE_TRANSCRIPTS": ""}
    with Stack(profile="fake", ready_timeout_s=60, AVATAR_MAX_SESSIONS="50", **pace) as stack:
        asyncio.run(photograph(stack, arguments.out, only=arguments.only))


if __name__ == "__main__":
    main()
