from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from inference.models.__main__ import main
from inference.models.catalogue import CATALOGUE, Model
from tests.inference.models.conftest import WEIGHTS


class TestCommand:
    @pytest.fixture
    def catalogue(self, model: Model, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(CATALOGUE, "tiny", model)
        monkeypatch.setenv("AVATAR_MODELS_DIR", str(models_dir))

    @pytest.fixture
    def run(self, catalogue: None) -> Callable[..., int]:
        return lambda *arguments: main(list(arguments))

    def test_fetches_and_verifies(self, run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
        assert run("fetch", "--model", "tiny") == 0
        assert "tiny is ready: 0 MB, MIT" in capsys.readouterr().out

        assert run("verify", "--model", "tiny") == 0
        assert capsys.readouterr().out == "tiny: verified\n"

    def test_says_nothing_when_nothing_is_missing(
        self, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        run("fetch", "--model", "tiny")
        capsys.readouterr()

        assert run("fetch", "--model", "tiny") == 0
        assert capsys.readouterr().out == ""

    def test_finds_damage_afterwards(
        self, run: Callable[..., int], models_dir: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run("fetch", "--model", "tiny")
        (models_dir / "other").mkdir()
        (models_dir / "tiny" / "model.bin").write_bytes(b"rot")

        assert run("verify", "--model", "tiny") == 1
        assert "models: tiny: model.bin is damaged" in capsys.readouterr().err
        assert (models_dir / "other").exists()
        assert run("fetch", "--model", "tiny") == 0
        assert (models_dir / "tiny" / "model.bin").read_bytes() == WEIGHTS

    def test_lists(self, run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
        assert run("list") == 0
        assert "tiny" in capsys.readouterr().out

    def test_refuses_a_name_it_does_not_know(self, run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
        assert run("fetch", "--model", "huge") == 1
        assert "models: no model is called huge" in capsys.readouterr().err
