"""Configuration of the inference process from its environment: profile, address, folders, engines and their sizes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from inference.address import AddressError, check_address, check_secret, make_default_address
from inference.interfaces import Role

#: Engines per profile and role, best first: when one fails to load, the role falls back to the next.
#: An engine is `module[:variant]`; the module lies in inference.engines and has a `create_<role>` function.
PROFILES: dict[str, dict[Role, tuple[str, ...]]] = {
    "cpu": {
        Role.STT: ("faster_whisper:whisper-base",),
        Role.LLM: ("llama_cpp:qwen2.5-coder-1.5b", "llama_cpp:qwen2.5-coder-0.5b"),
        Role.TTS: ("kokoro:kokoro-82m",),
        Role.ENCODER: ("ge2e_onnx:ge2e-resemblyzer",),
    },
    # Engines on the processor come last, so that a role without its GPU engine is still served, slower.
    "gpu": {
        Role.STT: ("faster_whisper:whisper-large-v3-turbo", "faster_whisper:whisper-base"),
        Role.LLM: ("vllm:qwen2.5-7b-instruct", "llama_cpp:qwen2.5-coder-1.5b"),
        Role.TTS: ("f5_tts:f5-tts-v1", "kokoro:kokoro-82m"),
        Role.ENCODER: ("ge2e_onnx:ge2e-resemblyzer",),
    },
    "fake": {
        Role.STT: ("fake",),
        Role.LLM: ("fake",),
        Role.TTS: ("fake",),
        Role.ENCODER: ("fake",),
    },
}


class ConfigurationError(Exception):
    """An environment variable has an invalid value. The message names it."""


@dataclass(frozen=True, slots=True)
class InferenceConfig:
    profile: str = "cpu"
    #: unix:/path or host:port.
    address: str = field(default_factory=lambda: make_default_address(read_data_dir({})))
    #: The secret that callers must send. Empty: access to the Unix socket is enough.
    secret: str = ""
    models_dir: Path = field(default_factory=lambda: default_models_dir({}))
    engines: Mapping[Role, tuple[str, ...]] = field(default_factory=lambda: PROFILES["cpu"])
    #: Threads per engine. All roles share the processor; more threads than cores only wait.
    threads: int = 2
    #: Concurrent calls per role; more are refused.
    max_calls: int = 8
    context_tokens: int = 4096
    #: Where engines that can choose compute: "cpu" or "cuda".
    device: str = "cpu"
    #: CTranslate2's name of the arithmetic; empty: int8 on the processor, float16 on a GPU.
    stt_compute_type: str = ""
    #: Device memory per role, and how much is left to other processes.
    stt_memory_mib: int = 2500
    llm_memory_mib: int = 17_000
    tts_memory_mib: int = 3000
    memory_reserve_mib: int = 300
    #: Sequences that vLLM decodes together; more are queued.
    llm_max_sequences: int = 16
    #: vLLM's name of the weights' quantisation; empty: what the model's own configuration says.
    llm_quantisation: str = ""
    llm_tensor_parallel: int = 1
    llm_dtype: str = "auto"
    #: The OpenAI-compatible server of engine `openai_chat`, such as http://127.0.0.1:8000/v1.
    openai_url: str = ""
    openai_model: str = ""
    openai_api_key: str = ""
    #: Steps of F5-TTS's solver, by quality.
    tts_fast_steps: int = 7
    tts_high_quality_steps: int = 32
    tts_cfg_strength: float = 2.0
    #: Seed of the noise of every clause; None: different each time.
    tts_seed: int | None = None
    #: A JSON file of words and their pinyin.
    tts_pronunciations: Path | None = None
    #: Model of high quality if different from the fast one; loaded on demand.
    tts_high_quality_model: str = ""
    tts_idle_unload_s: float = 300.0
    #: How long the engine caches an unused voice.
    tts_forget_voice_s: float = 600.0
    #: Seconds for active calls to finish after SIGTERM.
    drain_s: float = 5.0

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> InferenceConfig:
        """Raise ConfigurationError, naming the variable."""
        profile = env.get("AVATAR_PROFILE", "cpu")
        if profile not in PROFILES:
            raise ConfigurationError(f"AVATAR_PROFILE={profile}: expected one of {', '.join(PROFILES)}")
        default = cls()
        address = env.get("AVATAR_INFERENCE_ADDRESS") or make_default_address(read_data_dir(env))
        secret = env.get("AVATAR_INFERENCE_SECRET", "").strip()
        try:
            check_address(address)
        except AddressError as error:
            raise ConfigurationError(f"AVATAR_INFERENCE_ADDRESS={address}: {error}") from None
        try:
            check_secret(address, secret)
        except AddressError as error:
            raise ConfigurationError(str(error)) from None
        engines = dict(PROFILES[profile])
        for role in Role:
            chosen = env.get(f"AVATAR_{role.value.upper()}_ENGINES", "")
            if chosen:
                engines[role] = tuple(name.strip() for name in chosen.split(",") if name.strip())
        return cls(
            profile=profile,
            address=address,
            secret=secret,
            models_dir=default_models_dir(env),
            engines=engines,
            threads=_whole_number(env, "AVATAR_INFERENCE_THREADS", min(4, available_cores())),
            max_calls=_whole_number(env, "AVATAR_INFERENCE_MAX_CALLS", 8),
            context_tokens=_whole_number(env, "AVATAR_CONTEXT_TOKENS", 4096),
            device=_choice(env, "AVATAR_DEVICE", "cuda" if profile == "gpu" else "cpu", ("cpu", "cuda")),
            stt_compute_type=env.get("AVATAR_STT_COMPUTE_TYPE", ""),
            stt_memory_mib=_whole_number(env, "AVATAR_STT_MEMORY_MIB", default.stt_memory_mib),
            llm_memory_mib=_whole_number(env, "AVATAR_LLM_MEMORY_MIB", default.llm_memory_mib),
            tts_memory_mib=_whole_number(env, "AVATAR_TTS_MEMORY_MIB", default.tts_memory_mib),
            memory_reserve_mib=_whole_number(env, "AVATAR_MEMORY_RESERVE_MIB", default.memory_reserve_mib),
            llm_max_sequences=_whole_number(env, "AVATAR_LLM_MAX_SEQUENCES", default.llm_max_sequences),
            llm_quantisation=env.get("AVATAR_LLM_QUANTISATION", ""),
            llm_tensor_parallel=_whole_number(env, "AVATAR_LLM_TENSOR_PARALLEL", default.llm_tensor_parallel),
            llm_dtype=env.get("AVATAR_LLM_DTYPE") or default.llm_dtype,
            openai_url=env.get("AVATAR_OPENAI_URL", "").rstrip("/"),
            openai_model=env.get("AVATAR_OPENAI_MODEL", ""),
            openai_api_key=env.get("AVATAR_OPENAI_API_KEY", ""),
            tts_fast_steps=_whole_number(env, "AVATAR_TTS_FAST_STEPS", default.tts_fast_steps),
            tts_high_quality_steps=_whole_number(env, "AVATAR_TTS_HIGH_QUALITY_STEPS", default.tts_high_quality_steps),
            tts_cfg_strength=_decimal_number(env, "AVATAR_TTS_CFG_STRENGTH", default.tts_cfg_strength),
            tts_seed=_whole_number(env, "AVATAR_TTS_SEED", 1) if env.get("AVATAR_TTS_SEED") else None,
            tts_pronunciations=_path(env, "AVATAR_TTS_PRONUNCIATIONS"),
            tts_high_quality_model=env.get("AVATAR_TTS_HIGH_QUALITY_MODEL", ""),
            tts_idle_unload_s=_decimal_number(env, "AVATAR_TTS_IDLE_UNLOAD_S", default.tts_idle_unload_s),
            tts_forget_voice_s=_decimal_number(env, "AVATAR_TTS_FORGET_VOICE_S", default.tts_forget_voice_s),
        )


def available_cores() -> int:
    """Return how many cores this process may use: on a shared machine fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_models_dir(env: Mapping[str, str]) -> Path:
    """Return `$AVATAR_MODELS_DIR`, or a folder in the user's cache directory, shared by checkouts."""
    if env.get("AVATAR_MODELS_DIR"):
        return Path(env["AVATAR_MODELS_DIR"]).expanduser()
    cache = Path(env.get("XDG_CACHE_HOME") or os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "avatar" / "models"


def read_data_dir(env: Mapping[str, str]) -> Path:
    """Return `$AVATAR_DATA_DIR`, or `var` in the checkout, as the other processes do."""
    return Path(env.get("AVATAR_DATA_DIR") or Path(__file__).resolve().parents[1] / "var").expanduser().absolute()


def _whole_number(env: Mapping[str, str], name: str, default: int) -> int:
    value = env.get(name, "")
    if not value:
        return default
    if not value.isdecimal() or int(value) == 0:
        raise ConfigurationError(f"{name}={value}: expected a whole number above 0")
    return int(value)


def _decimal_number(env: Mapping[str, str], name: str, default: float) -> float:
    value = env.get(name, "")
    if not value:
        return default
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise ConfigurationError(f"{name}={value}: expected a number, 0 or above")
    return number


def _choice(env: Mapping[str, str], name: str, default: str, choices: tuple[str, ...]) -> str:
    value = env.get(name) or default
    if value not in choices:
        raise ConfigurationError(f"{name}={value}: expected one of {', '.join(choices)}")
    return value


def _path(env: Mapping[str, str], name: str) -> Path | None:
    return Path(env[name]).expanduser() if env.get(name) else None
