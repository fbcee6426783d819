"""
The inference border: the protocols of the four roles, and the values that cross it.

Engines implement these protocols in the model process, `InferenceClient` implements them over gRPC,
`inference.engines.fake` implements them with a script. A caller cannot tell which it holds.

Audio is PCM16 little-endian mono everywhere. Microphone audio is 16 kHz.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

MICROPHONE_SAMPLE_RATE_HZ = 16_000
BYTES_PER_SAMPLE = 2


class InferenceError(Exception):
    """An engine failed. It ends the call, but neither the process nor other calls."""


class InferenceUnavailable(InferenceError):
    """The inference process, or the engine of the role, cannot be reached or is not ready: retry later."""


class InferenceBusy(InferenceError):
    """Admission was refused: the engine is at capacity."""


# --- recognition -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TranscriptionOptions:
    """
    Options of a transcription.

    `language` is "zh", "en" or None (detected per utterance). With `endpointing` the engine decides where an utterance
    ends: after `pause_ms` of silence. Without it (hold to talk) only `EndOfUtterance` ends one. `sensitivity` is the
    probability of speech above which a 32 ms window counts as speech (0..1). A transcription that `is_background` is
    preempted by live calls and has no partial and no provisional transcripts.
    """

    language: str | None = None
    endpointing: bool = True
    pause_ms: int = 600
    min_speech_ms: int = 200
    sensitivity: float = 0.5
    is_background: bool = False


@dataclass(frozen=True, slots=True)
class EndOfUtterance:
    """The speaker ended the utterance (key released, `audio_end`): finish it now."""


@dataclass(frozen=True, slots=True)
class DiscardUtterance:
    """Discard the audio since the last final transcript."""


#: What goes into a transcription, in the order it happened: PCM16 bytes of any even length up to 1 MiB, a change of
#: options, or a marker.
TranscriptionInput = bytes | TranscriptionOptions | EndOfUtterance | DiscardUtterance


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """There was speech for `min_speech_ms`. Positions are milliseconds of audio since the stream began."""

    speech_start_ms: int


@dataclass(frozen=True, slots=True)
class PartialTranscript:
    """The transcript so far, while the speaker continues. Each replaces the previous one."""

    text: str
    language: str


@dataclass(frozen=True, slots=True)
class ProvisionalTranscript:
    """
    The whole utterance, recognised during the pause that may end it.

    Either a `FinalTranscript` with the same text follows when the pause is over, or `SpeechResumed` revokes it. Work
    may be started on it; none of the result may be played.
    """

    text: str
    language: str


@dataclass(frozen=True, slots=True)
class SpeechResumed:
    """The speaker continued: discard the provisional transcript."""


@dataclass(frozen=True, slots=True)
class FinalTranscript:
    """
    One finished utterance.

    An empty `text` means that there was no speech in it (noise, or `EndOfUtterance` on silence).
    `speech_start_ms`..`speech_end_ms` bound the speech in milliseconds of audio since the stream began.
    `received_ms` is how much audio had been received when the transcript was made: the difference to `speech_end_ms`
    is the delay of the transcript, measured in audio.
    """

    text: str
    language: str
    speech_start_ms: int
    speech_end_ms: int
    received_ms: int


TranscriptEvent = SpeechStarted | PartialTranscript | ProvisionalTranscript | SpeechResumed | FinalTranscript


class SpeechToText(Protocol):
    """A recogniser. One call is one stream of many utterances."""

    def transcribe(
        self, audio: AsyncIterator[TranscriptionInput], options: TranscriptionOptions
    ) -> AsyncGenerator[TranscriptEvent]:
        """
        Yield events until `audio` ends, which finishes the utterance as `EndOfUtterance` does.

        Raises InferenceUnavailable, InferenceBusy or InferenceError. Closing the generator ends the engine's work.
        """
        ...


# --- generation ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Message:
    """A message as a chat model takes it."""

    role: Literal["system", "user", "assistant"]
    content: str
    #: One of the messages that all conversations begin with: never dropped, and read once for all of them. No part of
    #: the message's content.
    is_shared: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """
    Options of a generation. `max_tokens` caps the reply; with `seed` None each reply is sampled differently.

    `repeat_penalty` divides the odds of recent tokens (1: not at all). A remote server may ignore it.
    """

    max_tokens: int = 256
    temperature: float = 0.6
    seed: int | None = None
    repeat_penalty: float = 1.0


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the reply, to be appended to the previous ones."""

    text: str


@dataclass(frozen=True, slots=True)
class GenerationFinished:
    """The last event of a generation. Token counts are the engine's own."""

    reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int


GenerationEvent = TextDelta | GenerationFinished


class LanguageModel(Protocol):
    """A language model."""

    def generate(self, messages: Sequence[Message], options: GenerationOptions) -> AsyncGenerator[GenerationEvent]:
        """
        Yield the reply piece by piece.

        Messages that do not fit the model's context are dropped, oldest first; the system message and the last
        message stay. Closing the generator stops the engine within one token.
        """
        ...

    async def prefill(self, messages: Sequence[Message]) -> None:
        """
        Read `messages` into the prefix cache, so that a generation that begins with them has a lower TTFT.

        The last message may be incomplete (a partial transcript). Best effort: an engine without a prefix cache returns
        at once. Cancelling stops it.
        """
        ...


# --- synthesis ----------------------------------------------------------------------------------


#: Values of a style, the vector by which an engine such as Kokoro speaks in a voice.
STYLE_VALUES = 256


class Quality(StrEnum):
    FAST = "fast"
    HIGH_QUALITY = "high_quality"


@dataclass(frozen=True, slots=True)
class VoiceReference:
    """
    A recording for engines that clone its voice: PCM16 mono at `sample_rate_hz`, at most 12 s, and its transcript.

    The recording itself, not its path: the engine may run on another machine. Engines cache what they compute from it.
    """

    pcm: bytes
    sample_rate_hz: int
    transcript: str


@dataclass(frozen=True, slots=True)
class SynthesisOptions:
    """
    Options of a synthesis.

    `voice` is an engine's voice key (see `TextToSpeech.list_voices`); an empty one means the engine's default for the
    language. An engine with styles also accepts a blend, "zf_xiaoxiao:0.6+zm_yunxi:0.4", whose weights sum to 1, and
    prefers `style`, if given: `STYLE_VALUES` float32, little-endian. An engine that clones prefers `reference`, if
    given. Each ignores what it does not support: of a blend it uses the voices that it has, or the heaviest of them,
    and its default when it has none, because a voice may have been matched for another engine. `speed` 1.0 is the
    voice's own pace. `is_first` marks the first clause of a reply, `is_last` the last. A synthesis that `is_background`
    is preempted by live calls.
    """

    voice: str = ""
    reference: VoiceReference | None = None
    style: bytes = b""
    quality: Quality = Quality.FAST
    speed: float = 1.0
    is_first: bool = True
    is_last: bool = True
    is_background: bool = False


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """
    A piece of synthesised audio: PCM16 mono, at `sample_rate_hz`.

    `quality` is the one it was synthesised in: fast where high quality was requested and memory was short.
    """

    pcm: bytes
    sample_rate_hz: int
    quality: Quality = Quality.FAST


@dataclass(frozen=True, slots=True)
class VoiceInfo:
    """A stock voice. `language` is "zh" or "en", the one it speaks best."""

    key: str
    name: str
    language: str
    gender: Literal["female", "male"]


class TextToSpeech(Protocol):
    """A voice engine."""

    def synthesise(self, text: str, options: SynthesisOptions) -> AsyncGenerator[AudioChunk]:
        """
        Yield the audio of one clause. Text without words (punctuation, emoji) yields nothing.

        Leading and trailing silence is trimmed to natural pauses between clauses. Closing the generator stops the
        engine within one step.
        """
        ...

    async def list_voices(self) -> tuple[VoiceInfo, ...]: ...

    async def list_styles(self) -> Mapping[str, bytes]:
        """
        Return the styles of all of the engine's voices by key, also of those that `list_voices` leaves out.

        Each has the form of `SynthesisOptions.style`. Empty when the engine has no styles.
        """
        ...


# --- speaker embeddings --------------------------------------------------------------------

EMBEDDING_VALUES = 256
MIN_RECORDING_S = 0.5
MAX_RECORDING_S = 60.0


@dataclass(frozen=True, slots=True)
class SpeakerEmbedding:
    """
    A speaker: `EMBEDDING_VALUES` numbers of unit length. The dot product of two embeddings is their similarity.

    Only embeddings of the same `encoder` (name and version) can be compared.
    """

    values: tuple[float, ...]
    encoder: str


class SpeakerEncoder(Protocol):
    """Computes speaker embeddings."""

    async def embed(self, pcm: bytes, *, sample_rate_hz: int = MICROPHONE_SAMPLE_RATE_HZ) -> SpeakerEmbedding:
        """
        Return the embedding of the speaker in `pcm`: PCM16 mono, `MIN_RECORDING_S` to `MAX_RECORDING_S` long.

        Always a background job: preempted by live calls.

        Raises InferenceError for a recording without speech, too short or too long; InferenceUnavailable,
        InferenceBusy.
        """
        ...


# --- state -------------------------------------------------------------------------------------


class Role(StrEnum):
    STT = "stt"
    LLM = "llm"
    TTS = "tts"
    ENCODER = "encoder"


#: The roles that a call needs. Without the encoder only new voices have to wait.
CONVERSATION_ROLES = frozenset({Role.STT, Role.LLM, Role.TTS})


class RoleState(StrEnum):
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    UNAVAILABLE = "unavailable"


#: Names of figures: requests that wait for an engine, and the share of its KV-cache in use, 0 to 1.
REQUESTS_WAITING = "requests_waiting"
KV_CACHE_USE = "kv_cache_use"


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """
    One role's engine.

    `memory_bytes` is how much loading it added to the process's resident memory, or to the device memory in use.
    `clones`: the engine clones `SynthesisOptions.reference`. `figures` are the engine's own metrics by name: times in
    seconds, counts.
    """

    role: Role
    state: RoleState
    engine: str
    model: str
    device: str
    load_s: float
    memory_bytes: int
    reason: str = ""
    active_calls: int = 0
    clones: bool = False
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Memory of one accelerator in bytes: total and free."""

    name: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class InferenceStatus:
    profile: str
    roles: tuple[RoleStatus, ...]
    resident_bytes: int
    started_at: float
    devices: tuple[DeviceMemory, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Whether a call is possible: each of its roles has a ready engine."""
        return {r.role for r in self.roles if r.state is RoleState.READY} >= CONVERSATION_ROLES

    @property
    def is_settled(self) -> bool:
        """Whether every role has finished starting: ready, or unavailable with a reason."""
        return bool(self.roles) and all(r.state in (RoleState.READY, RoleState.UNAVAILABLE) for r in self.roles)

    @property
    def clones(self) -> bool:
        """Whether voices are cloned rather than matched. False until the engine has been loaded."""
        return any(role.clones for role in self.roles)


class Inference(Protocol):
    """All roles as one object."""

    @property
    def stt(self) -> SpeechToText: ...
    @property
    def llm(self) -> LanguageModel: ...
    @property
    def tts(self) -> TextToSpeech: ...
    @property
    def encoder(self) -> SpeakerEncoder: ...

    async def status(self) -> InferenceStatus:
        """Raises InferenceUnavailable when the process does not answer within two seconds."""
        ...

    async def read_metrics(self) -> bytes:
        """
        Return what the process measures of its engines, in Prometheus's text format.

        Raises InferenceUnavailable when it does not answer within two seconds.
        """
        ...

    async def close(self) -> None: ...
