"""
The inference border: what an engine can do, and the values that cross it.

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
    """An engine failed. The call is over; the process and other calls are not."""


class InferenceUnavailable(InferenceError):
    """The inference process, or the engine for this role, cannot be reached or is not ready: try again."""


class InferenceBusy(InferenceError):
    """Admission was refused: the engine has as many calls as it takes."""


# --- hearing -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TranscriptionOptions:
    """
    How to listen.

    `language` is "zh", "en" or None (decided per utterance). With `endpointing` the engine decides where an
    utterance ends: after `pause_ms` of silence. Without it (hold to talk) only `EndOfUtterance` ends one.
    `sensitivity` is the probability of speech above which a 32 ms window counts as speech (0..1). What `is_background`
    gives way to everybody who is spoken with, and has no partial and no provisional transcripts.
    """

    language: str | None = None
    endpointing: bool = True
    pause_ms: int = 600
    min_speech_ms: int = 200
    sensitivity: float = 0.5
    is_background: bool = False


@dataclass(frozen=True, slots=True)
class EndOfUtterance:
    """The speaker says "that was all" (key released, `audio_end`): finish what was heard now."""


@dataclass(frozen=True, slots=True)
class DiscardUtterance:
    """Forget what was heard since the last final transcript."""


#: What goes into a transcription, in the order it happened: PCM16 bytes of any even length up to 1 MiB, a change of
#: options, or a marker.
TranscriptionInput = bytes | TranscriptionOptions | EndOfUtterance | DiscardUtterance


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Somebody has spoken for `min_speech_ms`. Positions are milliseconds of audio since the stream began."""

    speech_start_ms: int


@dataclass(frozen=True, slots=True)
class PartialTranscript:
    """What was understood so far, while the person still speaks. Each replaces the one before."""

    text: str
    language: str


@dataclass(frozen=True, slots=True)
class ProvisionalTranscript:
    """
    The whole utterance, recognised during the pause that may end it.

    Either a `FinalTranscript` with the same text follows when the pause is over, or `SpeechResumed` takes it back.
    Work may be started on it; nothing may be said aloud.
    """

    text: str
    language: str


@dataclass(frozen=True, slots=True)
class SpeechResumed:
    """The person went on speaking: forget the provisional transcript."""


@dataclass(frozen=True, slots=True)
class FinalTranscript:
    """
    One finished utterance.

    An empty `text` says that there was no speech in it after all (noise, or `EndOfUtterance` on silence).
    `speech_start_ms`..`speech_end_ms` bound the speech in milliseconds of audio since the stream began.
    `received_ms` is how much audio had been received when the transcript was made: the difference to `speech_end_ms`
    is the delay that a listener sees, measured in audio.
    """

    text: str
    language: str
    speech_start_ms: int
    speech_end_ms: int
    received_ms: int


TranscriptEvent = SpeechStarted | PartialTranscript | ProvisionalTranscript | SpeechResumed | FinalTranscript


class SpeechToText(Protocol):
    """Hears. One call is one listening session of many utterances."""

    def transcribe(
        self, audio: AsyncIterator[TranscriptionInput], options: TranscriptionOptions
    ) -> AsyncGenerator[TranscriptEvent]:
        """
        Yield events until `audio` ends. When it ends, what was heard is finished as if by `EndOfUtterance`.

        Raises InferenceUnavailable, InferenceBusy or InferenceError. Closing the generator ends the engine's work.
        """
        ...


# --- thinking ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Message:
    """A message as a chat model takes it."""

    role: Literal["system", "user", "assistant"]
    content: str
    #: One of those that all conversations begin with: never left out, and read once for all of them. Not part of what
    #: the message says.
    is_shared: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """
    How to answer. `max_tokens` caps the reply; `seed` None means a different answer each time.

    `repeat_penalty` divides the odds of what was just written (1: not at all). A server elsewhere may not know it.
    """

    max_tokens: int = 256
    temperature: float = 0.6
    seed: int | None = None
    repeat_penalty: float = 1.0


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the reply, to be appended to what came before."""

    text: str


@dataclass(frozen=True, slots=True)
class GenerationFinished:
    """The last event of a generation. Token counts are the engine's own."""

    reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int


GenerationEvent = TextDelta | GenerationFinished


class LanguageModel(Protocol):
    """Thinks."""

    def generate(self, messages: Sequence[Message], options: GenerationOptions) -> AsyncGenerator[GenerationEvent]:
        """
        Yield the reply piece by piece.

        Messages that do not fit the model's context are dropped, oldest first; the system message and the last
        message stay. Closing the generator stops the engine within one token.
        """
        ...

    async def prefill(self, messages: Sequence[Message]) -> None:
        """
        Read `messages` into the prefix cache, so that a generation that begins with them starts sooner.

        The last message may be the beginning of one (a partial transcript). Best effort: an engine without a prefix
        cache returns at once. Cancelling stops it.
        """
        ...


# --- speaking ----------------------------------------------------------------------------------


#: Values of a style: what an engine such as Kokoro is told of a voice.
STYLE_VALUES = 256


class Quality(StrEnum):
    FAST = "fast"
    HIGH_QUALITY = "high_quality"


@dataclass(frozen=True, slots=True)
class VoiceReference:
    """
    A recording to speak like, for engines that clone: PCM16 mono at `sample_rate_hz`, at most 12 s, and its transcript.

    The recording itself, not where it lies: the engine may run on another machine. Engines keep what they made of it.
    """

    pcm: bytes
    sample_rate_hz: int
    transcript: str


@dataclass(frozen=True, slots=True)
class SynthesisOptions:
    """
    How to speak.

    `voice` is an engine's voice key (see `TextToSpeech.list_voices`); an empty one means the engine's default for the
    language. An engine that has styles takes a blend as well, "zf_xiaoxiao:0.6+zm_yunxi:0.4", whose weights sum to 1,
    and speaks in `style` instead, when there is one: `STYLE_VALUES` float32, little-endian. An engine that clones
    speaks like `reference` instead, when there is one. Each passes over what it does not know: of a blend it takes the
    voices that it has, or the heaviest of them, and its default when it has none, for a voice may have been matched for
    another engine. `speed` 1.0 is the voice's own pace. `is_first` marks the first clause of a reply, `is_last` the
    last. What `is_background` gives way to everybody who is spoken with.
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

    `quality` is what it was made with: fast where high quality was asked for and memory was short.
    """

    pcm: bytes
    sample_rate_hz: int
    quality: Quality = Quality.FAST


@dataclass(frozen=True, slots=True)
class VoiceInfo:
    """A voice the engine ships. `language` is "zh" or "en": what it speaks best."""

    key: str
    name: str
    language: str
    gender: Literal["female", "male"]


class TextToSpeech(Protocol):
    """Speaks."""

    def synthesise(self, text: str, options: SynthesisOptions) -> AsyncGenerator[AudioChunk]:
        """
        Yield the audio of one clause. Text with nothing to say in it (punctuation, emoji) yields nothing.

        Leading and trailing silence is trimmed to what joins clauses naturally. Closing the generator stops the
        engine's work within one step.
        """
        ...

    async def list_voices(self) -> tuple[VoiceInfo, ...]: ...

    async def list_styles(self) -> Mapping[str, bytes]:
        """
        Return the styles of all voices that the engine has, by key, those that are not offered included.

        Each is as `SynthesisOptions.style` takes it. Empty when the engine has no styles.
        """
        ...


# --- telling speakers apart --------------------------------------------------------------------

EMBEDDING_VALUES = 256
MIN_RECORDING_S = 0.5
MAX_RECORDING_S = 60.0


@dataclass(frozen=True, slots=True)
class SpeakerEmbedding:
    """
    Who speaks: `EMBEDDING_VALUES` numbers, of unit length; the dot product of two says how alike they sound.

    Only embeddings of the same `encoder` (its name and version) can be compared.
    """

    values: tuple[float, ...]
    encoder: str


class SpeakerEncoder(Protocol):
    """Tells speakers apart."""

    async def embed(self, pcm: bytes, *, sample_rate_hz: int = MICROPHONE_SAMPLE_RATE_HZ) -> SpeakerEmbedding:
        """
        Return who speaks in `pcm`: PCM16 mono, `MIN_RECORDING_S` to `MAX_RECORDING_S` long.

        Always in the background: it gives way to everybody who is spoken with.

        Raises InferenceError when nobody does, or it is too short or too long; InferenceUnavailable; InferenceBusy.
        """
        ...


# --- state -------------------------------------------------------------------------------------


class Role(StrEnum):
    STT = "stt"
    LLM = "llm"
    TTS = "tts"
    ENCODER = "encoder"


#: What a spoken conversation needs. Without the encoder only new voices have to wait.
CONVERSATION_ROLES = frozenset({Role.STT, Role.LLM, Role.TTS})


class RoleState(StrEnum):
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """
    One role's engine.

    `memory_bytes` is what loading it added to the process's resident memory, or to what is held of the device's.
    `clones` says that the engine speaks like `SynthesisOptions.reference`. `figures` are the engine's own, by name:
    times in seconds, counts.
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
    """Memory of one accelerator, in bytes: all of it, and what nobody holds."""

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
        """Whether a spoken conversation is possible: each of its roles has an engine that is ready."""
        return {r.role for r in self.roles if r.state is RoleState.READY} >= CONVERSATION_ROLES

    @property
    def is_settled(self) -> bool:
        """Whether every role has come to the end of its start: ready, or unavailable with a reason."""
        return bool(self.roles) and all(r.state in (RoleState.READY, RoleState.UNAVAILABLE) for r in self.roles)

    @property
    def clones(self) -> bool:
        """Whether a recording is spoken like, rather than matched. False until the engine has been loaded."""
        return any(role.clones for role in self.roles)


class Inference(Protocol):
    """All roles behind the border, as one object: what a consumer is given."""

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

    async def close(self) -> None: ...
