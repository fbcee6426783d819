from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from inference.config import PROFILES, ConfigurationError, InferenceConfig, default_models_dir
from inference.interfaces import Role
from inference.models.catalogue import CATALOGUE, PROFILE_MODELS


class TestFromEnv:
    def test_has_defaults(self) -> None:
        config = InferenceConfig.from_env({"AVATAR_DATA_DIR": "/srv/avatar"})

        assert config.profile == "cpu"
        assert (config.address, config.secret) == ("unix:/srv/avatar/inference.sock", "")
        assert config.engines == PROFILES["cpu"]
        assert config.threads >= 1

    def test_reads_every_variable(self, tmp_path: Path) -> None:
        config = InferenceConfig.from_env(
            {
                "AVATAR_PROFILE": "fake",
                "AVATAR_INFERENCE_ADDRESS": "0.0.0.0:1234",
                "AVATAR_INFERENCE_SECRET": "not to be guessed",
                "AVATAR_MODELS_DIR": str(tmp_path),
                "AVATAR_INFERENCE_THREADS": "3",
                "AVATAR_INFERENCE_MAX_CALLS": "5",
                "AVATAR_CONTEXT_TOKENS": "2048",
                "AVATAR_LLM_ENGINES": "llama_cpp:one, fake",
            }
        )

        assert config.profile == "fake"
        assert (config.address, config.secret) == ("0.0.0.0:1234", "not to be guessed")
        assert config.models_dir == tmp_path
        assert (config.threads, config.max_calls, config.context_tokens) == (3, 5, 2048)
        assert config.engines == {**PROFILES["fake"], Role.LLM: ("llama_cpp:one", "fake")}

    @pytest.mark.parametrize(
        ("address", "secret", "said"),
        [
            ("127.0.0.1:50051", "", "AVATAR_INFERENCE_SECRET is not set"),
            ("127.0.0.1:50051", "short", "AVATAR_INFERENCE_SECRET: expected at least 16 characters"),
            ("nowhere", "", "AVATAR_INFERENCE_ADDRESS=nowhere: expected host:port, or unix: and an absolute path"),
            ("unix:/" + "x" * 107, "", "at most 107 bytes and this one has 108: choose a shorter one"),
        ],
    )
    def test_refuses_an_address_that_cannot_be_served_or_is_open_to_strangers(
        self, address: str, secret: str, said: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=said):
            InferenceConfig.from_env({"AVATAR_INFERENCE_ADDRESS": address, "AVATAR_INFERENCE_SECRET": secret})

    def test_reads_what_the_engines_of_a_gpu_are_told(self, tmp_path: Path) -> None:
        told = {
            "AVATAR_STT_COMPUTE_TYPE": ("stt_compute_type", "int8_float16"),
            "AVATAR_STT_MEMORY_MIB": ("stt_memory_mib", 1300),
            "AVATAR_LLM_MEMORY_MIB": ("llm_memory_mib", 7000),
            "AVATAR_TTS_MEMORY_MIB": ("tts_memory_mib", 2200),
            "AVATAR_MEMORY_RESERVE_MIB": ("memory_reserve_mib", 200),
            "AVATAR_LLM_MAX_SEQUENCES": ("llm_max_sequences", 4),
            "AVATAR_LLM_QUANTISATION": ("llm_quantisation", "fp8"),
            "AVATAR_LLM_TENSOR_PARALLEL": ("llm_tensor_parallel", 2),
            "AVATAR_LLM_DTYPE": ("llm_dtype", "float16"),
            "AVATAR_OPENAI_URL": ("openai_url", "http://127.0.0.1:8000/v1"),
            "AVATAR_OPENAI_MODEL": ("openai_model", "qwen"),
            "AVATAR_OPENAI_API_KEY": ("openai_api_key", "sesame"),
            "AVATAR_TTS_FAST_STEPS": ("tts_fast_steps", 5),
            "AVATAR_TTS_HIGH_QUALITY_STEPS": ("tts_high_quality_steps", 16),
            "AVATAR_TTS_CFG_STRENGTH": ("tts_cfg_strength", 1.5),
            "AVATAR_TTS_SEED": ("tts_seed", 7),
            "AVATAR_TTS_PRONUNCIATIONS": ("tts_pronunciations", tmp_path / "readings.json"),
            "AVATAR_TTS_HIGH_QUALITY_MODEL": ("tts_high_quality_model", "f5-tts-v1"),
            "AVATAR_TTS_IDLE_UNLOAD_S": ("tts_idle_unload_s", 60.0),
            "AVATAR_TTS_FORGET_VOICE_S": ("tts_forget_voice_s", 30.0),
        }

        config = InferenceConfig.from_env(
            {"AVATAR_PROFILE": "gpu"} | {name: str(value) for name, (_, value) in told.items()}
        )

        assert config.device == "cuda"
        assert {field: getattr(config, field) for field, _ in told.values()} == dict(told.values())
        assert InferenceConfig.from_env({"AVATAR_PROFILE": "gpu", "AVATAR_DEVICE": "cpu"}).device == "cpu"

    def test_takes_empty_variables_for_unset(self) -> None:
        names = ("AVATAR_INFERENCE_ADDRESS", "AVATAR_MODELS_DIR", "AVATAR_INFERENCE_THREADS", "AVATAR_STT_ENGINES")

        assert InferenceConfig.from_env(dict.fromkeys(names, "")) == InferenceConfig.from_env({})

    def test_does_not_change_the_profiles(self) -> None:
        InferenceConfig.from_env({"AVATAR_STT_ENGINES": "fake"})

        assert PROFILES["cpu"][Role.STT] != ("fake",)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("AVATAR_PROFILE", "tpu"),
            ("AVATAR_INFERENCE_THREADS", "many"),
            ("AVATAR_INFERENCE_THREADS", "0"),
            ("AVATAR_INFERENCE_MAX_CALLS", "-1"),
            ("AVATAR_CONTEXT_TOKENS", "4k"),
            ("AVATAR_DEVICE", "tpu"),
            ("AVATAR_LLM_MEMORY_MIB", "17GB"),
            ("AVATAR_TTS_CFG_STRENGTH", "-1"),
            ("AVATAR_TTS_IDLE_UNLOAD_S", "soon"),
            ("AVATAR_TTS_FORGET_VOICE_S", "-1"),
        ],
    )
    def test_names_the_variable_that_is_wrong(self, name: str, value: str) -> None:
        with pytest.raises(ConfigurationError, match=f"{name}={value}"):
            InferenceConfig.from_env({name: value})


class TestProfiles:
    @pytest.mark.parametrize("profile", PROFILES)
    def test_names_engines_that_exist_for_every_role(self, profile: str) -> None:
        for role in Role:
            for name in PROFILES[profile][role]:
                module, _, _ = name.partition(":")

                assert importlib.util.find_spec(f"inference.engines.{module}") is not None

    @pytest.mark.parametrize("profile", PROFILES)
    def test_fetches_the_first_engine_of_every_role(self, profile: str) -> None:
        for role in Role:
            _, _, model = PROFILES[profile][role][0].partition(":")

            assert not model or model in PROFILE_MODELS[profile]

    def test_names_models_of_the_catalogue_only(self) -> None:
        for engines in PROFILES.values():
            for role, names in engines.items():
                for _, _, model in (name.partition(":") for name in names):
                    assert not model or CATALOGUE[model].role == role


class TestDefaultModelsDir:
    def test_is_in_the_users_cache(self) -> None:
        assert default_models_dir({"XDG_CACHE_HOME": "/cache"}) == Path("/cache/avatar/models")

    def test_is_what_the_environment_says(self) -> None:
        assert default_models_dir({"AVATAR_MODELS_DIR": "~/weights"}) == Path.home() / "weights"
