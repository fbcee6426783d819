"""The folder of models on disk: completeness, checksums, and the path of each model."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from inference.models.catalogue import CATALOGUE, Model

#: Written last into a model's folder: its digest and the sums of its files. A folder without it is not a model.
COMPLETE = "complete.json"


class ModelError(Exception):
    """A model could not be fetched, or differs from the catalogue. The message says what to do."""


def model_dir(models_dir: Path, name: str) -> Path:
    """
    Return the folder of a complete model: one of the catalogue, or a path of the operator's.

    Raises ModelError when it has not been fetched, or there is no such folder.
    """
    if "/" in name:
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise ModelError(f"there is no folder {folder}")
        return folder
    folder = models_dir / name
    if name not in CATALOGUE:
        raise ModelError(f"no model is called {name}: there are {', '.join(CATALOGUE)}")
    if not is_complete(models_dir, CATALOGUE[name]):
        raise ModelError(f"model {name} is not in {models_dir}: run `make models`")
    return folder


def is_complete(models_dir: Path, model: Model) -> bool:
    try:
        complete = json.loads((models_dir / model.name / COMPLETE).read_text())
    except (OSError, ValueError):
        return False
    return bool(complete.get("digest") == model.digest)


def seal(model: Model, built: Path, models_dir: Path) -> None:
    """Write the sums of the files in `built` into it and rename it to the model's name: from then on it is complete."""
    sums = {
        str(path.relative_to(built)): compute_sha256(path)
        for path in sorted(built.rglob("*"))
        if path.is_file() and path.name != COMPLETE
    }
    complete = {"digest": model.digest, "fetched_at": time.time(), "sha256": sums}
    (built / COMPLETE).write_text(json.dumps(complete, indent=1))
    folder = models_dir / model.name
    shutil.rmtree(folder, ignore_errors=True)
    built.rename(folder)


def verify(model: Model, folder: Path, *, throw_away: Path) -> None:
    """Raise ModelError, and remove `throw_away`, when a file differs from the catalogue."""
    for file in model.files:
        if not (folder / file.path).is_file():
            raise ModelError(f"{model.name}: {file.path} is missing")
        if compute_sha256(folder / file.path) != file.sha256:
            shutil.rmtree(throw_away, ignore_errors=True)
            raise ModelError(f"{model.name}: {file.path} is damaged (SHA-256 differs); it was thrown away, try again")


def check_sums(folder: Path) -> None:
    sums: dict[str, str] = json.loads((folder / COMPLETE).read_text()).get("sha256", {})
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file():
            raise ModelError(f"{path} is missing")
        if compute_sha256(path) != expected:
            raise ModelError(f"{path} is damaged (SHA-256 differs)")


def compute_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def lock_model(models_dir: Path, name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Let one process at a time write a model's folder; others wait."""
    with (models_dir / f".{name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"  waiting: another process is fetching {name}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
