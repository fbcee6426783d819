"""Take pictures of every page: both languages, two sizes, light and dark. `make screenshots`."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, Route, async_playwright

from tests.e2e import browser
from tests.e2e.browser import CallPage, VoicesPage
from tests.e2e.stack import ROOT, Stack

LOCALES = {"zh": "zh-TW", "en": "en-US"}
SIZES = {"phone": browser.PHONE, "desktop": browser.DESKTOP}
SCHEMES = ("dark", "light")
FADE_MS = 600  # the longest transition of the page, and then some
WORDS = {
    "zh": ("週末想去陽明山走走，有什麼建議？", "那要帶什麼東西？"),
    "en": ("I would like to go hiking on the weekend. Any ideas?", "What should I bring?"),
}
NAMES = {
    "zh": ("我的聲音", "阿嬤說故事", "爸爸", "昨天錄的", "客服小姐"),
    "en": ("My voice", "Grandma’s stories", "Dad", "From yesterday", "Front desk"),
}
TRANSCRIPTS = {
    "zh": "早安，今天的天氣真好，陽光照進窗戶，街上傳來腳踏車的鈴聲。",
    "en": "Good morning. The sun comes in through the window.",
}
FAILURES = {
    "zh": "錄音裡聽不出說話內容。請在安靜的地方錄幾句話。",
    "en": "No speech could be recognised in the recording. Please record a few sentences in a quiet place.",
}


class Photographer:
    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder = folder
        self.prefix = prefix

    async def take(self, page: Page, name: str, *, is_whole: bool = False) -> None:
        await page.wait_for_timeout(FADE_MS)
        await page.screenshot(path=self.folder / f"{self.prefix}-{name}.png", full_page=is_whole)


class Refusals:
    """The pages that say no, as Django renders them: a browser cannot bring them about at will."""

    _TEMPLATES = ("403", "403_csrf", "500")
    _COMMAND = (
        "import json;"
        "from django.template.loader import render_to_string;"
        "from django.utils import translation;"
        "translation.activate({language!r});"
        "print(json.dumps({{name: render_to_string(name + '.html') for name in {names!r}}}))"
    )

    def __init__(self, stack: Stack) -> None:
        self._url = stack.url
        self._pages: dict[str, dict[str, str]] = {
            language: json.loads(
                stack.manage(
                    "shell",
                    "--no-imports",
                    "--command",
                    self._COMMAND.format(language=django_language, names=self._TEMPLATES),
                )
            )
            for language, django_language in (("zh", "zh-hant"), ("en", "en"))
        }

    async def photograph(self, context: BrowserContext, photographer: Photographer, language: str) -> None:
        page = await context.new_page()
        for name, html in self._pages[language].items():
            address = f"{self._url}/{name}"
            await page.route(address, answer_page(html))
            await page.goto(address)
            await photographer.take(page, f"refusal-{name}")
        await page.close()


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


async def photograph_beginner(stack: Stack, started: Browser, photographer: Photographer, options: Any) -> None:
    """What Bob sees, who never talks and keeps nothing; and a call that is not kept."""
    context = await started.new_context(**options)
    call = await CallPage.open(context, stack.url, user="bob")
    page = call.page
    await page.goto(f"{stack.url}/history/")
    await photographer.take(page, "history-empty")
    await page.goto(f"{stack.url}/")
    await page.wait_for_selector("#start:enabled")
    await page.check("#keeps-nothing")
    await page.click("#start-typing")
    await call.wait_for("typing")
    await photographer.take(page, "call-unkept")
    await context.close()


async def photograph_administration(stack: Stack, context: BrowserContext, photographer: Photographer) -> None:
    page = await context.new_page()
    for name, path in (
        ("voices", "voices/voiceprofile/"),
        ("conversations", "conversations/conversation/"),
    ):
        await page.goto(f"{stack.url}/admin/{path}")
        await photographer.take(page, f"admin-{name}")
    await page.close()


async def photograph_dashboard(stack: Stack, context: BrowserContext, photographer: Photographer) -> None:
    """The operators' first page of a site that is used, then of one with alerts, then of a new one; the audit list."""
    page = await context.new_page()
    for state, spans in (("good", ("hour", "day", "month")), ("alerts", ("day",)), ("new", ("hour",))):
        await asyncio.to_thread(measure, stack, state)
        if state == "good":
            await page.goto(f"{stack.url}/admin/realtime/livecall/")
            await photographer.take(page, "admin-calls")
            await page.check("#action-toggle")
            await photographer.take(page, "admin-calls-chosen")
        for span in spans:
            await page.goto(f"{stack.url}/admin/?span={span}")
            if span == "day":
                await page.hover(".panel-first-sound .dash-plot")
            await photographer.take(page, f"admin-first-page-{state}-{span}", is_whole=True)
        if state == "good":
            await page.goto(f"{stack.url}/admin/admin/logentry/")
            await photographer.take(page, "admin-audit")
    await page.close()


def measure(stack: Stack, state: str) -> None:
    """Have the site measured as it would be in this state."""
    stack.manage(
        "shell", "--no-imports", "--command", f"from tests import measured_site; measured_site.write_site({state!r})"
    )


async def photograph_backups(stack: Stack, context: BrowserContext, photographer: Photographer) -> None:
    """Backups in all their states, then none, then a target that is away."""
    page = await context.new_page()
    address = f"{stack.url}/admin/operations/backuprun/"
    await page.goto(address)
    await photographer.take(page, "admin-backups", is_whole=True)
    target = stack.data_dir / "backups"
    kept = target.rename(stack.data_dir / "kept")
    await page.goto(address)
    await photographer.take(page, "admin-backups-none", is_whole=True)
    target.write_text("a file in its place")
    await page.goto(address)
    await photographer.take(page, "admin-backups-away", is_whole=True)
    target.unlink()
    kept.rename(target)
    await page.close()


def make_backups(stack: Stack) -> None:
    stack.manage(
        "shell",
        "--no-imports",
        "--command",
        "import datetime as dt\n"
        "from django.utils import timezone\n"
        "from avatar_site.operations.models import BackupRun, Restore\n"
        "from tests.listed_backups import write_backup\n"
        "damaged = write_backup(hours_ago=50, problem='conversations_turn has 2310 rows instead of 2312')\n"
        "write_backup(hours_ago=26, is_encrypted=True, problem=None)\n"
        "newest = write_backup(hours_ago=2, is_encrypted=True)\n"
        "ago = lambda hours: timezone.now() - dt.timedelta(hours=hours)\n"
        "made = {'kind': 'backup', 'reason': 'nightly'}\n"
        "BackupRun.objects.create(**made, state='done', name=newest, stored_bytes=52_000_000, started_at=ago(2.01),"
        " finished_at=ago(2))\n"
        "BackupRun.objects.create(kind='verification', state='done', name=newest, started_at=ago(2),"
        " finished_at=ago(1.9))\n"
        "BackupRun.objects.create(kind='verification', state='failed', name=damaged, started_at=ago(50),"
        " finished_at=ago(49.9), problem='conversations_turn has 2310 rows instead of 2312')\n"
        "Restore.objects.create(name=damaged, restored_at=ago(1))\n",
    )


async def photograph_accounts(stack: Stack, context: BrowserContext, photographer: Photographer) -> None:
    """One's own account, and users as an operator adds and changes them."""
    page = await context.new_page()
    await page.goto(f"{stack.url}/account/")
    await photographer.take(page, "account")
    for field, text in (("old_password", "wrong"), ("new_password1", "12345"), ("new_password2", "12345")):
        await page.fill(f"#id_{field}", text)
    await page.click("main button")
    await photographer.take(page, "account-refused", is_whole=True)
    for name, path in (
        ("users", ""),
        ("user-add", "add/"),
        ("user-change", "1/change/"),
        ("user-password", "1/password/"),
    ):
        await page.goto(f"{stack.url}/admin/auth/user/{path}")
        await photographer.take(page, f"admin-{name}")
    await page.close()


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


async def photograph_history(stack: Stack, call: CallPage, photographer: Photographer, words: tuple[str, str]) -> None:
    """What the call before it has left."""
    page = call.page
    await page.goto(f"{stack.url}/history/")
    await photographer.take(page, "history")
    await page.goto(f"{stack.url}/history/?q=nothing-like-this")
    await photographer.take(page, "history-nothing-found")
    await page.goto(f"{stack.url}/history/?pinned=1")
    await photographer.take(page, "history-filters")
    await page.goto(f"{stack.url}/history/?q={words[0][:4]}")
    await photographer.take(page, "history-found")
    await page.locator(".entry").first.click()
    await photographer.take(page, "history-conversation", is_whole=True)
    await page.locator(".said-edit").first.click()
    await photographer.take(page, "history-correcting")
    await page.keyboard.press("Escape")
    await page.click(".conversation-header summary")
    await photographer.take(page, "history-menu")
    await page.click('.conversation-header [data-dialog="delete-dialog"]')
    await photographer.take(page, "history-delete")
    await page.keyboard.press("Escape")
    await page.click(".conversation-header summary")
    await page.click("#rename")
    await photographer.take(page, "history-rename")
    await page.goto(f"{stack.url}/history/")
    await page.click(".entries-header summary")
    await photographer.take(page, "history-all-menu")
    await page.click('[data-dialog="retention-dialog"]')
    await photographer.take(page, "history-retention")
    await page.keyboard.press("Escape")
    await page.click(".entries-header summary")
    await page.click("#choose")
    await page.locator(".entry-choice input").first.check()
    await photographer.take(page, "history-choosing")
    await page.click("#chosen-delete")
    await photographer.take(page, "history-delete-chosen")
    await page.keyboard.press("Escape")
    await page.goto(f"{stack.url}/")


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
    for name, code in (("reconnecting", 1006), ("full", 4429), ("overloaded", 4431)):
        await page.evaluate("(code) => window.avatar.socket.ondropped({code})", code)
        await photographer.take(page, f"trouble-{name}")
    for name, place in (("waiting", 3), ("waiting-next", 1)):
        await page.evaluate("(place) => window.avatar.socket.onmessage({type: 'waiting', place, count: 4})", place)
        await photographer.take(page, name)
    await page.evaluate("() => window.avatar.socket.onrefused(4412)")
    await photographer.take(page, "trouble-no-answer")
    await page.evaluate("() => window.avatar.socket.onrefused(4401)")
    await photographer.take(page, "trouble-login")


def describe_voice(number: int, language: str, **changes: Any) -> dict[str, Any]:
    """A voice as the API tells of it."""
    recording = {
        "id": f"{number:08d}-0000-4000-8000-000000000001",
        "duration_s": 16.2,
        "speech_s": 14.6,
        "snr_db": 31.0,
        "clipped_share": 0.0,
        "speaker_count": 1,
        "transcript": TRANSCRIPTS[language],
        "size_bytes": 412_000,
        "created_at": "2026-11-20T09:30:00+08:00",
        "warnings": [],
    }
    return {
        "id": f"{number:08d}-0000-4000-8000-000000000000",
        "name": NAMES[language][number],
        "language": language,
        "gender": "",
        "kind": "matched",
        "state": "ready",
        "step": "matching",
        "progress": 1.0,
        "error": None,
        "similarity": 0.71,
        "fitting": {"state": "none", "progress": 0.0, "similarity": None},
        "version": 1,
        "is_own": True,
        "is_shared": False,
        "is_default": False,
        "is_stock": False,
        "qualities": ["fast"],
        "recordings": [recording],
        "size_bytes": 412_000,
        "created_at": "2026-11-20T09:30:00+08:00",
        "last_used_at": None,
    } | changes


def describe_voices(language: str) -> list[dict[str, Any]]:
    """One of each state."""
    building = {"state": "extracting", "step": "embedding", "progress": 0.45, "version": 0}
    failed = {"state": "failed", "error": {"code": "no_speech", "detail": FAILURES[language]}, "version": 0}
    return [
        describe_voice(0, language, is_default=True),
        describe_voice(1, language, similarity=0.68, fitting={"state": "running", "progress": 0.3, "similarity": None}),
        describe_voice(2, language, **building),
        describe_voice(3, language, **failed),
    ]


def describe_list(voices: list[dict[str, Any]]) -> dict[str, Any]:
    return {"count": len(voices), "next": None, "previous": None, "results": voices}


def answer(content: Any) -> Callable[[Route], Any]:
    """Answer in the server's place: states that would take minutes, or a fault, to come about."""

    async def fulfil(route: Route) -> None:
        await route.fulfill(json=content)

    return fulfil


def answer_page(html: str) -> Callable[[Route], Any]:
    async def fulfil(route: Route) -> None:
        await route.fulfill(content_type="text/html; charset=utf-8", body=html)

    return fulfil


async def keep_waiting(route: Route) -> None:
    """Answer only after the picture has been taken."""
    await asyncio.sleep(3 * FADE_MS / 1000)
    await route.abort()


async def photograph_voices(stack: Stack, context: BrowserContext, photographer: Photographer, language: str) -> None:
    """The list, in all its states."""
    page = await context.new_page()
    own = "**/api/voice-profiles?scope=own*"
    for name, handler in (
        ("loading", keep_waiting),
        ("unreachable", lambda route: route.abort()),
        ("empty", answer(describe_list([]))),
    ):
        await page.route(own, handler)
        await page.goto(f"{stack.url}/voices/")
        await photographer.take(page, f"voices-{name}")
        await page.unroute_all(behavior="wait")
    voices = describe_voices(language)
    shared = describe_voice(4, language, is_own=False, is_shared=True, similarity=0.74, recordings=[])
    await page.route(own, answer(describe_list(voices)))
    await page.route("**/api/voice-profiles?scope=shared*", answer(describe_list([shared])))
    for voice in voices:
        await page.route(f"**/api/voice-profiles/{voice['id']}/status", answer(voice))
    await page.goto(f"{stack.url}/voices/")
    await page.wait_for_selector("#own .card")
    await photographer.take(page, "voices", is_whole=True)
    opened = VoicesPage(page, stack.url)
    first = NAMES[language][0]
    await opened.card(first).locator("summary").click()
    await photographer.take(page, "voices-menu")
    await opened.card(first).locator("summary").click()
    for dialog in ("rename", "share", "delete"):
        await opened.choose_from_menu(first, dialog)
        await photographer.take(page, f"voices-{dialog}")
        await page.keyboard.press("Escape")
    await page.click(".header .menu summary")
    await photographer.take(page, "menu")
    await page.close()


async def photograph_new_voice(
    stack: Stack, context: BrowserContext, photographer: Photographer, language: str, recording: Path
) -> None:
    """The three steps to a voice, and what may go wrong."""
    opened = VoicesPage(await context.new_page(), stack.url)
    page = opened.page
    address = f"{stack.url}/voices/new/"
    await page.goto(address)
    await page.wait_for_selector(".choice")
    await page.check('[name="consent_attestation"][value="own_voice"]')
    await photographer.take(page, "new-consent")
    await page.click("#give-consent")
    await photographer.take(page, "new-record")
    await page.click('[data-do="record"]')
    await page.wait_for_function("() => document.querySelector('.timer').textContent >= '0:05'")
    await photographer.take(page, "new-recording")
    await page.click('[data-do="record"]')
    await photographer.take(page, "new-recorded", is_whole=True)
    await page.check('[name="way"][value="import"]', force=True)
    await photographer.take(page, "new-import")
    await page.check('[name="way"][value="file"]', force=True)
    await photographer.take(page, "new-file")
    await page.set_input_files(
        '[name="audio"]', {"name": "voice.wav", "mimeType": "audio/wav", "buffer": b"<!doctype html>" * 99}
    )
    await page.click("#send")
    await page.wait_for_selector("#notice:not([hidden])")
    await photographer.take(page, "new-refused", is_whole=True)
    session = await context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 300_000}
    await session.send("Network.emulateNetworkConditions", slow)
    await page.set_input_files('[name="audio"]', recording)
    await page.click("#send")
    await page.wait_for_function("() => document.getElementById('sending-bar').value > 0.3")
    await photographer.take(page, "new-sending", is_whole=True)
    await page.click("#cancel-sending")
    await photographer.take(page, "new-stopped", is_whole=True)
    await session.send("Network.emulateNetworkConditions", slow | {"uploadThroughput": -1})
    await page.evaluate(
        """() => { navigator.mediaDevices.getUserMedia = async () => {
          throw new DOMException("", "NotAllowedError"); }; }"""
    )
    await page.check('[name="way"][value="record"]', force=True)
    await page.click('[data-do="discard"]')
    await page.click('[data-do="record"]')
    await photographer.take(page, "new-no-microphone")
    ready, _fitting, building, failed = describe_voices(language)
    ready["recordings"][0]["warnings"] = ["noisy", "short"]
    for name, voice in (("building", building), ("result", ready), ("failed", failed)):
        await page.route(f"**/api/voice-profiles/{voice['id']}", answer(voice))
        await page.route(f"**/api/voice-profiles/{voice['id']}/status", answer(voice))
        await page.goto(f"{address}?voice={voice['id']}")
        await photographer.take(page, f"new-{name}", is_whole=True)
    await page.close()


async def photograph_one_voice(
    stack: Stack, context: BrowserContext, photographer: Photographer, language: str, recording: bytes
) -> None:
    page = await context.new_page()
    await page.goto(f"{stack.url}/voices/")
    cookies = {cookie["name"]: cookie["value"] for cookie in await context.cookies()}
    made = await context.request.post(
        f"{stack.url}/api/voice-profiles",
        headers={"X-CSRFToken": cookies["csrftoken"], "Referer": stack.url, "Accept-Language": LOCALES[language]},
        multipart={
            "name": NAMES[language][0],
            "language": language,
            "consent_attestation": "own_voice",
            "audio": {"name": "voice.wav", "mimeType": "audio/wav", "buffer": recording},
        },
    )
    voice_id = (await made.json())["id"]
    ready, fitting, building, failed = describe_voices(language)
    second = ready["recordings"][0] | {"id": "00000000-0000-4000-8000-000000000009", "warnings": ["clipped"]}
    fitted = {"state": "done", "progress": 1.0, "similarity": 0.77}
    for name, voice in (
        ("ready", ready | {"recordings": [*ready["recordings"], second]}),
        ("fitting", fitting),
        ("fitted", ready | {"fitting": fitted, "similarity": 0.77, "qualities": ["fast", "high_quality"]}),
        ("building", building),
        ("failed", failed),
    ):
        await page.route(f"**/api/voice-profiles/{voice_id}", answer(voice | {"id": voice_id}))
        await page.route(f"**/api/voice-profiles/{voice_id}/status", answer(voice))
        await page.goto(f"{stack.url}/voices/{voice_id}/")
        await photographer.take(page, f"voice-{name}", is_whole=True)
        await page.unroute_all(behavior="ignoreErrors")
    await page.click("#adding summary")
    await page.wait_for_selector("#adding .choice")
    await photographer.take(page, "voice-adding", is_whole=True)
    await page.close()


async def photograph_voice_sheet(call: CallPage, photographer: Photographer, language: str) -> None:
    page = call.page
    await page.route("**/api/voice-profiles?scope=own*", answer(describe_list(describe_voices(language))))
    await page.click("#open-settings")
    await page.wait_for_selector("[data-own]")
    await page.locator('[data-section="voice"]').scroll_into_view_if_needed()
    await page.evaluate("() => document.querySelector('[data-section=voice]').scrollIntoView()")
    await photographer.take(page, "settings-voices")
    await page.keyboard.press("Escape")
    await page.unroute_all(behavior="ignoreErrors")


async def photograph(stack: Stack, folder: Path, *, only: str, part: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        microphone = browser.write_speech(
            Path(temporary) / "voice.wav", [("silence", 4), ("voice", 2.5), ("silence", 1)]
        )
        recording = browser.write_speech(Path(temporary) / "recording.wav", [("voice", 20)])
        sound = await asyncio.to_thread(recording.read_bytes)
        refusals = await asyncio.to_thread(Refusals, stack)
        async with async_playwright() as playwright:
            for language, locale in LOCALES.items():
                for size, viewport in SIZES.items():
                    for scheme in SCHEMES:
                        prefix = f"{size}-{scheme}-{language}"
                        if only not in prefix:
                            continue
                        started = await browser.launch(playwright, microphone=microphone)
                        options: dict[str, Any] = {
                            "locale": locale,
                            "viewport": viewport,
                            "color_scheme": scheme,
                            "device_scale_factor": 1,
                        }
                        context = await started.new_context(**options)
                        photographer = Photographer(folder, prefix)
                        call = await photograph_calm_pages(stack, context, photographer)
                        await photograph_accounts(stack, context, photographer)
                        if part == "accounts":
                            await started.close()
                            continue
                        await photograph_dashboard(stack, context, photographer)
                        if part == "dashboard":
                            await started.close()
                            continue
                        await photograph_backups(stack, context, photographer)
                        if part == "backups":
                            await started.close()
                            continue
                        await photograph_voice_sheet(call, photographer, language)
                        await photograph_voices(stack, context, photographer, language)
                        await photograph_new_voice(stack, context, photographer, language, recording)
                        await photograph_one_voice(stack, context, photographer, language, sound)
                        if part == "voices":
                            await started.close()
                            continue
                        await refusals.photograph(context, photographer, language)
                        await photograph_administration(stack, context, photographer)
                        await photograph_beginner(stack, started, photographer, options)
                        await photograph_call(call, photographer, WORDS[language])
                        await photograph_history(stack, call, photographer, WORDS[language])
                        await photograph_trouble(call, photographer)
                        await started.close()
                        print(f"{prefix}: done", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "screenshots", help="folder for the pictures")
    parser.add_argument("--only", default="", help="part of a name, such as phone, dark-zh")
    parser.add_argument(
        "--part",
        choices=("all", "accounts", "dashboard", "backups", "voices"),
        default="all",
        help="stop after these pages",
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    pace = {"AVATAR_FAKE_FIRST_TOKEN_S": "1.5", "AVATAR_FAKE_TRANSCRIPTS": ""}
    many = {"AVATAR_MAX_SESSIONS": "50", "AVATAR_MAX_CALLS_PER_PERSON": "50", "AVATAR_INFERENCE_MAX_CALLS": "60"}
    with Stack(profile="fake", ready_timeout_s=60, **many, **pace) as stack:
        make_backups(stack)
        asyncio.run(photograph(stack, arguments.out, only=arguments.only, part=arguments.part))


if __name__ == "__main__":
    main()
