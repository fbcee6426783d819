"""What the inference process is told by its environment: profile, address, folders, engines and their sizes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from inference.interfaces import Role

#: Engines per profile and role, best first: when one fails to load, the role falls back to the next.
#: An engine is `module[:variant]`; the module lies in inference.engines and has a `create_<role>` function.
PROFILES: dict[str, dict[Role, tuple[str, ...]]] = {
    "cpu": {
        Role.STT: ("faster_whisper:whisper-base",),
        Role.LLM: ("llama_cpp:qwen2.5-coder-1.5b", "llama_cpp:qwen2.5-coder-0.5b"),
        Role.TTS: ("kokoro:kokoro-82m",),
    },
    "fake": {
        Role.STT: ("fake",),
        Role.LLM: ("fake",),
        Role.TTS: ("fake",),
    },
}


class ConfigurationError(Exception):
    """A variable of the environment has a value that cannot be used. The message names it."""


@dataclass(frozen=True, slots=True)
class InferenceConfig:
    profile: str = "cpu"
    address: str = "127.0.0.1:50051"
    models_dir: Path = field(default_factory=lambda: default_models_dir({}))
    engines: Mapping[Role, tuple[str, ...]] = field(default_factory=lambda: PROFILES["cpu"])
    #: Threads of one engine's step. The processor is shared by all roles; more threads than cores only wait.
    threads: int = 2
    #: Calls at once, per role, before admission is refused.
    max_calls: int = 8
    context_tokens: int = 4096
    #: Seconds that calls under way may take to finish after SIGTERM.
    drain_s: float = 5.0

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> InferenceConfig:
        """Raises ConfigurationError, naming the variable."""
        profile = env.get("AVATAR_PROFILE", "cpu")
        if profile not in PROFILES:
            raise ConfigurationError(f"AVATAR_PROFILE={profile}: expected one of {', '.join(PROFILES)}")
        engines = dict(PROFILES[profile])
        for role in Role:
            chosen = env.get(f"AVATAR_{role.value.upper()}_ENGINES", "")
            if chosen:
                engines[role] = tuple(name.strip() for name in chosen.split(",") if name.strip())
        return cls(
            profile=profile,
            address=env.get("AVATAR_INFERENCE_ADDRESS") or "127.0.0.1:50051",
            models_dir=default_models_dir(env),
            engines=engines,
            threads=_whole_number(env, "AVATAR_INFERENCE_THREADS", min(4, available_cores())),
            max_calls=_whole_number(env, "AVATAR_INFERENCE_MAX_CALLS", 8),
            context_tokens=_whole_number(env, "AVATAR_CONTEXT_TOKENS", 4096),
        )


def available_cores() -> int:
    """Cores this process may use, which on a shared machine are fewer than it has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_models_dir(env: Mapping[str, str]) -> Path:
    """`$AVATAR_MODELS_DIR`, or the user's cache directory, shared by checkouts."""
    if env.get("AVATAR_MODELS_DIR"):
        return Path(env["AVATAR_MODELS_DIR"]).expanduser()
    cache = Path(env.get("XDG_CACHE_HOME") or os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "avatar" / "models"


def _whole_number(env: Mapping[str, str], name: str, default: int) -> int:
    value = env.get(name, "")
    if not value:
        return default
    if not value.isdecimal() or int(value) == 0:
        raise ConfigurationError(f"{name}={value}: expected a whole number above 0")
    return int(value)
