from __future__ import annotations

from typing import Any

import pytest

from inference.interfaces import Role
from inference.models.__main__ import main
from inference.models.catalogue import CATALOGUE, PROFILE_MODELS, list_models


class TestCatalogue:
    @pytest.mark.parametrize("name", CATALOGUE)
    def test_is_consistent(self, name: str) -> None:
        model = CATALOGUE[name]

        assert model.role in {*Role, "test"}
        assert model.licence in ("MIT", "Apache-2.0", "CC-BY-NC-4.0")
        assert all(len(file.sha256) == 64 and int(file.sha256, 16) for file in model.files)
        assert {part.registry for part in model.parts} <= {"pypi", "npm"}
        # Every file that is verified is made of parts; what is not verified comes from an archive that is, or from the
        # hub, which has sums of its own.
        assert {file.path for file in model.files} <= {part.target for part in model.parts}
        for part in model.parts:
            assert part.archive_sha256 or part.target in {file.path for file in model.files}
        assert model.files or model.hub or model.hub_folder or (model.prepare and model.needs)
        assert model.files or model.approximate_bytes or not (model.hub or model.hub_folder)
        for path, repository, filename in model.hub:
            assert path in {file.path for file in model.files} or not model.files
            assert repository.count("/") == 1
            assert filename

    def test_needs_models_of_its_own(self) -> None:
        for model in CATALOGUE.values():
            assert set(model.needs) <= set(CATALOGUE)
        for names in PROFILE_MODELS.values():
            for name in names:
                assert set(CATALOGUE[name].needs) <= set(names)

    @pytest.mark.parametrize("name", CATALOGUE)
    def test_takes_each_part_once(self, name: str) -> None:
        places = [(part.package, part.member) for part in CATALOGUE[name].parts]

        assert len(places) == len(set(places))

    def test_knows_what_every_profile_fetches(self) -> None:
        assert {name for names in PROFILE_MODELS.values() for name in names} <= set(CATALOGUE)

    @pytest.mark.parametrize("name", [name for name in CATALOGUE if CATALOGUE[name].prepare])
    def test_names_preparations_that_exist(self, name: str) -> None:
        module, _, function = CATALOGUE[name].prepare.partition(":")

        assert callable(getattr(__import__(module, fromlist=[function]), function))


class TestListModels:
    @pytest.mark.parametrize("profile", PROFILE_MODELS)
    def test_is_the_profiles_own(self, profile: str) -> None:
        assert list_models(profile, {}) == list(PROFILE_MODELS[profile])

    def test_leaves_out_what_other_engines_take_the_place_of(self) -> None:
        named = list_models(
            "gpu",
            {
                "AVATAR_LLM_ENGINES": "vllm:qwen2.5-7b-instruct-awq",
                "AVATAR_STT_ENGINES": "faster_whisper:/srv/breeze,faster_whisper:whisper-base",
            },
        )

        assert set(named) == {
            "kokoro-82m",
            "f5-tts-v1",
            "f5-voices",
            "qwen2.5-7b-instruct-awq",
            "whisper-base",
            "ge2e-resemblyzer",
        }

    def test_fetches_nothing_for_a_server_elsewhere(self) -> None:
        assert list_models("cpu", {"AVATAR_LLM_ENGINES": "openai_chat"}) == [
            "whisper-base",
            "kokoro-82m",
            "ge2e-resemblyzer",
        ]

    def test_says_what_is_wrong_with_a_setting(self, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        monkeypatch.setenv("AVATAR_CONTEXT_TOKENS", "4k")

        assert main(["fetch", "--profile", "cpu"]) == 1
        assert "AVATAR_CONTEXT_TOKENS=4k" in capsys.readouterr().err
