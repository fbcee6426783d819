"""The pages of alerts: each alert is there, and so are the settings and commands that they name."""

from __future__ import annotations

import re

import pytest
from django.conf import settings
from django.core.management import get_commands

from avatar_site.monitoring.conditions import CONDITIONS
from tests.runbooks import FOLDER

PAGES = ("alerts.md", "alerts.zh-Hant.md")


@pytest.mark.parametrize("page", PAGES)
class TestPages:
    def test_have_a_part_for_each_alert(self, page: str) -> None:
        text = (FOLDER / page).read_text(encoding="utf-8")

        assert re.findall(r"^## ([a-z_]+)$", text, re.MULTILINE) == list(CONDITIONS)

    def test_name_settings_and_commands_that_exist(self, page: str) -> None:
        text = (FOLDER / page).read_text(encoding="utf-8")
        listed = (settings.BASE_DIR / ".env.example").read_text(encoding="utf-8")

        named = set(re.findall(r"AVATAR_[A-Z0-9_]*[A-Z0-9]", text))
        assert {name for name in named if f"#{name}=" not in listed and name != "AVATAR_ALERT"} <= {"AVATAR_SECRET_KEY"}
        assert set(re.findall(r"manage\.py (\w+)", text)) <= set(get_commands())

    def test_link_to_pages_that_exist(self, page: str) -> None:
        text = (FOLDER / page).read_text(encoding="utf-8")

        assert [name for name in re.findall(r"\]\(([^)#]+)\)", text) if not (FOLDER / name).exists()] == []
