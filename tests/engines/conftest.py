"""The production engines' own code on the processor, with small weights. `make test-engines` runs it."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from inference.config import default_models_dir
from inference.models.catalogue import CATALOGUE
from inference.models.fetching import fetch
from tests.engines.tiny_f5 import write_tiny_f5

SMOLLM2 = "smollm2-135m"

# vLLM finds out its own address by a connection to a name server on the Internet, unless it is told.
os.environ.setdefault("VLLM_HOST_IP", "127.0.0.1")


@pytest.fixture(scope="session")
def models_dir() -> Path:
    return default_models_dir(os.environ)


@pytest.fixture(scope="session")
def smollm2_gguf(models_dir: Path) -> Path:
    fetch(CATALOGUE[SMOLLM2], models_dir)
    return models_dir / SMOLLM2 / "model.gguf"


@pytest.fixture(scope="session")
def smollm2_folder(smollm2_gguf: Path, models_dir: Path) -> Path:
    """The same model as a Hugging Face folder, made once and kept with the other models."""
    folder = models_dir / "made-for-tests" / f"{SMOLLM2}-hf"
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The other process of a run, or another run, may be making it just now.
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _write_hugging_face_folder(smollm2_gguf, folder)
    return folder


def _write_hugging_face_folder(gguf: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    draft = folder.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    source, file = str(gguf.parent), gguf.name
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=file, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(draft)
    AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(draft)
    draft.rename(folder)


@pytest.fixture(scope="session")
def tiny_f5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_f5(tmp_path_factory.mktemp("f5") / "tiny")


@pytest.fixture(scope="session")
def stand_ins(smollm2_folder: Path, tiny_f5: Path, models_dir: Path) -> dict[str, str]:
    """The environment of profile gpu with small weights, on the processor."""
    fetch(CATALOGUE["whisper-base"], models_dir)
    # The stock voices, by the names that voice profiles have for them.
    fetch(CATALOGUE["f5-voices"], models_dir)
    return {
        "AVATAR_PROFILE": "gpu",
        "AVATAR_DEVICE": "cpu",
        "AVATAR_STT_ENGINES": "faster_whisper:whisper-base",
        "AVATAR_LLM_ENGINES": f"vllm:{smollm2_folder}",
        "AVATAR_TTS_ENGINES": f"f5_tts:{tiny_f5}",
        "AVATAR_MODELS_DIR": str(models_dir),
        "AVATAR_CONTEXT_TOKENS": "1024",
        "AVATAR_TTS_HIGH_QUALITY_STEPS": "12",
    }
