"""The production engines' own code on the processor, with small weights. `make test-engines` runs it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from inference import models
from inference.config import default_models_dir

SMOLLM2 = "smollm2-135m"


@pytest.fixture(scope="session")
def models_dir() -> Path:
    return default_models_dir(os.environ)


@pytest.fixture(scope="session")
def smollm2_gguf(models_dir: Path) -> Path:
    models.fetch(models.CATALOGUE[SMOLLM2], models_dir)
    return models_dir / SMOLLM2 / "model.gguf"


@pytest.fixture(scope="session")
def smollm2_folder(smollm2_gguf: Path, models_dir: Path) -> Path:
    """The same model as a Hugging Face folder, made once and kept beside the other models."""
    folder = models_dir / "made-for-tests" / f"{SMOLLM2}-hf"
    if not folder.exists():
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        draft = folder.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        source, file = str(smollm2_gguf.parent), smollm2_gguf.name
        model = AutoModelForCausalLM.from_pretrained(
            source, gguf_file=file, quantization_config=GgufConfig(dequantize=True)
        )
        model.save_pretrained(draft)
        AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(draft)
        draft.rename(folder)
    return folder
