from __future__ import annotations

import tomllib
from typing import Any

from django.conf import settings


def read_contracts() -> list[dict[str, Any]]:
    content = (settings.BASE_DIR / "pyproject.toml").read_text(encoding="utf-8")
    return list(tomllib.loads(content)["tool"]["importlinter"]["contracts"])


def read_layers() -> list[str]:
    """The layers of the first contract, highest first; one may have several modules."""
    return list(read_contracts()[0]["layers"])


class TestLayers:
    def test_have_every_module_of_the_site(self) -> None:
        site = {path.stem for path in (settings.BASE_DIR / "avatar_site").iterdir() if path.suffix in ("", ".py")}
        named = {part.strip().removeprefix("avatar_site.") for part in read_layers()[0].split(":")}

        assert named == site - {"__init__", "__pycache__", "lib"}


class TestVoices:
    def test_keep_every_module_to_themselves_but_three(self) -> None:
        (contract,) = [each for each in read_contracts() if each["name"].startswith("Others import services")]
        modules = {path.stem for path in (settings.BASE_DIR / "voices").iterdir() if path.suffix in ("", ".py")}
        kept = {module.removeprefix("voices.") for module in contract["forbidden_modules"]}

        assert kept == modules - {"__init__", "__pycache__", "migrations", "services", "models", "voice_spec"}


class TestCallMachine:
    def test_imports_messages_alone_of_the_modules_beside_it(self) -> None:
        (contract,) = [each for each in read_contracts() if each["name"].startswith("The call's machine")]
        modules = {path.stem for path in (settings.BASE_DIR / "realtime").iterdir() if path.suffix in ("", ".py")}
        forbidden = {module.removeprefix("realtime.") for module in contract["forbidden_modules"]}

        assert forbidden == modules - {"__init__", "__pycache__", "call", "messages"} | {"asyncio"}
