"""A real browser with a microphone that plays a sound file, and the call page as a person uses it."""

from __future__ import annotations

import base64
import wave
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from playwright.async_api import Browser, BrowserContext, Locator, Page, Playwright, expect

from tests.e2e.stack import PASSWORD

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
)
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1440, "height": 900}
MICROPHONE_RATE_HZ = 48_000

#: Keeps everything that the speaker plays, from the tap's `callback` on.
_START_TAP = """() => {
  window.heard = [];
  window.stopTap = window.avatar.speaker.tap(({samples, sampleRate}) => {
    window.heardRate = sampleRate;
    window.heard.push(samples);
  });
}"""
_READ_TAP = """() => {
  const all = new Float32Array(window.heard.reduce((sum, piece) => sum + piece.length, 0));
  let offset = 0;
  for (const piece of window.heard) { all.set(piece, offset); offset += piece.length; }
  let text = "";
  const bytes = new Uint8Array(all.buffer);
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return {rate: window.heardRate ?? 0, data: btoa(text)};
}"""


async def launch(playwright: Playwright, *, microphone: Path | None, may_listen: bool = True) -> Browser:
    """Start a browser. Without `microphone` it hears the silence of a file that has ended."""
    arguments = [*ARGUMENTS, "--use-fake-device-for-media-stream"]
    if may_listen:
        arguments.append("--use-fake-ui-for-media-stream")
    else:
        arguments.append("--deny-permission-prompts")
    if microphone is not None:
        arguments.append(f"--use-file-for-fake-audio-capture={microphone}%noloop")
    return await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)


class AvatarPage:
    """Any page of AVATAR, logged in, and what the browser complained about on it."""

    #: There when the page's script has come.
    ready_selector = "main"

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.problems: list[str] = []
        page.on("console", lambda m: self.problems.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    @classmethod
    async def open(
        cls, context: BrowserContext, url: str, *, path: str = "/", user: str = "alice", password: str = PASSWORD
    ) -> Self:
        """Log in as `user`, and be on the page that was asked for."""
        opened = cls(await context.new_page(), url)
        await opened.page.goto(f"{url}{path}")
        await opened.page.fill("#id_username", user)
        await opened.page.fill("#id_password", password)
        await opened.page.click("main button")
        await expect(opened.page.locator(cls.ready_selector)).to_be_visible()
        return opened

    async def ask(self, method: str, path: str, **body: object) -> int:
        """Ask the API as this person, past what the page offers them, and return the status of its answer."""
        token = next(cookie["value"] for cookie in await self.page.context.cookies() if cookie["name"] == "csrftoken")
        answer = await self.page.context.request.fetch(
            f"{self.url}{path}",
            method=method,
            headers={"X-CSRFToken": token, "Referer": self.url},
            data=body or None,
        )
        return answer.status

    async def find_overflow(self) -> list[str]:
        """Elements that reach beyond the width of the page."""
        found: list[str] = await self.page.evaluate(
            """() => document.documentElement.scrollWidth <= innerWidth ? [] :
              [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
                .map((e) => `${e.tagName}#${e.id}.${e.className}`)"""
        )
        return found

    async def find_small_targets(self) -> list[Any]:
        """Visible controls smaller than 44 by 44."""
        found: list[Any] = await self.page.evaluate(
            """() => [...document.querySelectorAll("button, a[href]:not(.skip), summary, .switch, .segments label")]
              .filter((e) => e.checkVisibility())
              .map((e) => [e.id || e.className || e.textContent.trim(), e.getBoundingClientRect()])
              // A box of 44 can be laid out as one of 43.9999.
              .filter(([, box]) => box.width > 0 && (box.width < 43.95 || box.height < 43.95))
              .map(([name, box]) => [name, box.width, box.height])"""
        )
        return found

    async def find_nameless_controls(self) -> list[str]:
        """Controls that a screen reader could not name."""
        found: list[str] = await self.page.evaluate(
            """() => [...document.querySelectorAll("button, a[href], input:not([type=hidden]), textarea, meter")]
              .filter((e) => !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.textContent.trim()
                || e.labels?.length))
              .map((e) => e.outerHTML)"""
        )
        return found


class CallPage(AvatarPage):
    """What a person sees and does on the call page."""

    ready_selector = "#start:enabled"

    async def start(self) -> None:
        await self.page.click("#start")
        await self.wait_for("listening", "hold", "muted", "hearing")

    async def wait_for(self, *states: str, timeout_s: float = 30) -> None:
        selector = ", ".join(f'#main[data-state="{state}"]' for state in states)
        await self.page.wait_for_selector(selector, timeout=timeout_s * 1000)

    async def type(self, text: str) -> None:
        if not await self.page.locator("#composer").is_visible():
            await self.page.click("#keyboard")
        await self.page.fill("#message", text)
        await self.page.press("#message", "Enter")

    @property
    def user_turns(self) -> Locator:
        return self.page.locator(".turn.is-user:not(.is-partial) .turn-text")

    @property
    def replies(self) -> Locator:
        """Replies that are complete."""
        return self.page.locator(".turn.is-avatar:not(.is-partial) .turn-text")

    async def start_tap(self) -> None:
        await self.page.evaluate(_START_TAP)

    async def read_tap(self) -> tuple[NDArray[np.float32], int]:
        """What the speaker has played since `start_tap`, and at which rate."""
        heard = await self.page.evaluate(_READ_TAP)
        return np.frombuffer(base64.b64decode(heard["data"]), dtype="<f4"), heard["rate"]


class VoicesPage(AvatarPage):
    """What a person sees and does on the pages about voices."""

    ready_selector = "main.room"

    def card(self, name: str) -> Locator:
        return self.page.locator(".card").filter(has=self.page.locator(".card-name", has_text=name))

    async def choose_from_menu(self, name: str, what: str) -> None:
        card = self.card(name)
        await card.locator("summary").click()
        await card.locator(f'[data-do="{what}"]').click()

    async def consent(self, attestation: str = "own_voice") -> None:
        await self.page.check(f'[name="consent_attestation"][value="{attestation}"]')
        await self.page.click("#give-consent")

    async def choose_way(self, way: str) -> None:
        await self.page.locator(".ways label", has=self.page.locator(f'[value="{way}"]')).click()

    async def choose_file(self, path: Path) -> None:
        await self.choose_way("file")
        await self.page.set_input_files('[name="audio"]', path)

    async def make_voice(self, name: str, path: Path) -> None:
        """All three steps, to a voice that is ready."""
        await self.page.goto(f"{self.url}/voices/new/")
        await self.consent()
        await self.choose_file(path)
        await self.page.fill("#name", name)
        await self.page.click("#send")
        await expect(self.page.locator("#result")).to_be_visible(timeout=60_000)


def write_speech(path: Path, parts: Iterable[tuple[str, float]]) -> Path:
    """A microphone file of ("silence" | "voice", seconds). The voice is a hum; the fake engine hears it."""
    pieces = []
    for kind, seconds in parts:
        t = np.arange(int(seconds * MICROPHONE_RATE_HZ)) / MICROPHONE_RATE_HZ
        if kind == "silence":
            pieces.append(np.zeros_like(t))
            continue
        pitch = 150 + 30 * np.sin(2 * np.pi * 0.7 * t)
        phase = 2 * np.pi * np.cumsum(pitch) / MICROPHONE_RATE_HZ
        syllables = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * t)
        pieces.append(0.3 * syllables * sum(np.sin(n * phase) / n for n in range(1, 9)))
    return write_wav(path, np.concatenate(pieces), MICROPHONE_RATE_HZ)


def write_wav(path: Path, samples: NDArray[np.floating[Any]], rate_hz: int) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((samples * 32_767).clip(-32_768, 32_767).astype("<i2").tobytes())
    return path
