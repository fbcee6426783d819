"""The operators' first page in a real browser: single values, refreshing, a phone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from playwright.async_api import Browser, expect

from tests.e2e.browser import PHONE, AvatarPage
from tests.e2e.conftest import CONTEXT
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

WRITE = "from tests import measured_site; measured_site.write_site({state!r})"
#: An alert of now, as the task that examines conditions opens it.
OPEN_ALERT = (
    "from django.utils import timezone;from tests import measured_site;measured_site.write_alerts(now=timezone.now())"
)


class DashboardPage(AvatarPage):
    ready_selector = "#dashboard"


@pytest.fixture(scope="module", autouse=True)
def _measured(fake_stack: Stack) -> Iterator[None]:
    fake_stack.manage("shell", "--no-imports", "--command", WRITE.format(state="good"))
    yield
    # The calls in it take all places.
    fake_stack.manage("shell", "--no-imports", "--command", WRITE.format(state="new"))


class TestDashboard:
    async def test_tells_single_values_to_pointer_and_keyboard(
        self, fake_stack: Stack, launch: Callable[..., Awaitable[Browser]]
    ) -> None:
        context = await (await launch()).new_context(**CONTEXT)
        opened = await DashboardPage.open(context, fake_stack.url, path="/admin/?span=month")
        plot = opened.page.locator(".panel-memory .dash-plot")
        tip = plot.locator(".dash-tip")

        await plot.hover()
        await expect(tip).to_contain_text("主記憶體")
        pointed = await tip.inner_text()
        await opened.page.mouse.move(1, 1)
        await expect(tip).to_be_hidden()
        await plot.focus()
        await opened.page.keyboard.press("End")
        last = await tip.inner_text()
        await opened.page.keyboard.press("ArrowLeft")
        await expect(tip).not_to_have_text(last)
        await opened.page.keyboard.press("Escape")
        await expect(tip).to_be_hidden()

        assert "%" in pointed
        assert opened.problems == []

    async def test_refreshes_itself_and_says_when_it_cannot(
        self, fake_stack: Stack, launch: Callable[..., Awaitable[Browser]]
    ) -> None:
        context = await (await launch()).new_context(**CONTEXT)
        opened = await DashboardPage.open(context, fake_stack.url, path="/admin/")
        page = opened.page
        await page.clock.install()
        await page.reload()
        await expect(page.locator(".dash-alerts")).to_have_count(0)
        await asyncio.to_thread(fake_stack.manage, "shell", "--no-imports", "--command", OPEN_ALERT)

        await page.clock.fast_forward(61_000)
        await expect(page.locator(".dash-alerts li")).to_have_count(3)
        await context.clear_cookies()
        await page.clock.fast_forward(61_000)

        # A login page in its place would look as if all were gone.
        await expect(page.locator("#dash-stale")).to_be_visible()
        await expect(page.locator(".dash-alerts li")).to_have_count(3)

    @pytest.mark.parametrize("locale", ["zh-TW", "en-US"])
    async def test_fits_a_phone(
        self, fake_stack: Stack, launch: Callable[..., Awaitable[Browser]], locale: str
    ) -> None:
        context = await (await launch()).new_context(**(CONTEXT | {"viewport": PHONE, "locale": locale}))
        opened = await DashboardPage.open(context, fake_stack.url, path="/admin/?span=day")

        assert await opened.find_overflow() == []
        small = await opened.page.evaluate(
            """() => [...document.querySelectorAll("#dashboard a")].filter((e) => e.checkVisibility())
              .filter((e) => !e.closest(".dash-tile") && e.getBoundingClientRect().height < 43.95)
              .map((e) => e.textContent)"""
        )
        assert small == []
