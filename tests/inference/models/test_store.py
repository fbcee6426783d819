from __future__ import annotations

import json
from pathlib import Path

import pytest

from inference.models.store import ModelError, model_dir


class TestModelDir:
    def test_takes_a_folder_of_the_operators_own(self, models_dir: Path, tmp_path: Path) -> None:
        assert model_dir(models_dir, str(tmp_path)) == tmp_path
        with pytest.raises(ModelError, match="there is no folder"):
            model_dir(models_dir, str(tmp_path / "none"))

    def test_says_how_to_get_what_is_missing(self, models_dir: Path) -> None:
        with pytest.raises(ModelError, match=r"whisper-base is not in .*: run `make models`"):
            model_dir(models_dir, "whisper-base")

    def test_refuses_a_model_without_its_mark(self, models_dir: Path) -> None:
        (models_dir / "whisper-base").mkdir(parents=True)
        (models_dir / "whisper-base" / "complete.json").write_text(json.dumps({"digest": "older"}))

        with pytest.raises(ModelError, match="make models"):
            model_dir(models_dir, "whisper-base")

    def test_names_what_there_is(self, models_dir: Path) -> None:
        with pytest.raises(ModelError, match="no model is called tiny: there are whisper-base"):
            model_dir(models_dir, "tiny")
