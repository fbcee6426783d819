from __future__ import annotations

import tomllib

from django.conf import settings


def read_layers() -> list[str]:
    """The layers of the first contract, highest first; one may have several modules."""
    content = (settings.BASE_DIR / "pyproject.toml").read_text(encoding="utf-8")
    return list(tomllib.loads(content)["tool"]["importlinter"]["contracts"][0]["layers"])


class TestLayers:
    def test_have_every_module_of_the_site(self) -> None:
        site = {path.stem for path in (settings.BASE_DIR / "avatar_site").iterdir() if path.suffix in ("", ".py")}
        named = {part.strip().removeprefix("avatar_site.") for part in read_layers()[0].split(":")}

        assert named == site - {"__init__", "__pycache__", "lib"}
