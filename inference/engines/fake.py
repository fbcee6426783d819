"""
Scripted engines of every role, for tests and for profile `fake`.

Tests build them directly and read their counters. Under `AVATAR_PROFILE=fake` the inference process loads them through
`create_<role>`, with timings from `AVATAR_FAKE_*`.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import math
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inference.audio.durations import count_bytes
from inference.audio.levels import measure_rms
from inference.engines.base import Engine
from inference.interfaces import (
    EMBEDDING_VALUES,
    MICROPHONE_SAMPLE_RATE_HZ,
    STYLE_VALUES,
    AudioChunk,
    DiscardUtterance,
    EndOfUtterance,
    FinalTranscript,
    GenerationEvent,
    GenerationFinished,
    GenerationOptions,
    InferenceError,
    InferenceUnavailable,
    Message,
    PartialTranscript,
    ProvisionalTranscript,
    Quality,
    SpeakerEmbedding,
    SpeechResumed,
    SpeechStarted,
    SynthesisOptions,
    TextDelta,
    TranscriptEvent,
    TranscriptionInput,
    TranscriptionOptions,
    VoiceInfo,
)
from inference.voice_options import check_recording, check_reference, choose_shares, read_style

FRAME_MS = 20
FRAME_BYTES = count_bytes(FRAME_MS, MICROPHONE_SAMPLE_RATE_HZ)
#: Root mean square above which a frame counts as speech. Digital silence and a quiet room stay below.
SPEECH_RMS = 400.0
#: Silence after which the real engines make a provisional transcript.
PROVISIONAL_AFTER_MS = 200
PARTIAL_EVERY_MS = 400


@dataclass(slots=True)
class Calls:
    """Counts of an engine's calls. Every started call is active, or ended in exactly one of the other ways."""

    started: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0

    @property
    def active(self) -> int:
        return self.started - self.finished - self.cancelled - self.failed

    @contextlib.contextmanager
    def count(self) -> Iterator[None]:
        self.started += 1
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        except BaseException:
            self.failed += 1
            raise
        else:
            self.finished += 1


@dataclass(slots=True)
class _Failures:
    """Exceptions to raise, and when. An outage lasts until it is ended; others are raised once."""

    outage: Exception | None = None
    next_calls: list[tuple[Exception, int]] = field(default_factory=list)

    def pop_next(self) -> tuple[Exception, int] | None:
        if self.outage is not None:
            return self.outage, 0
        return self.next_calls.pop(0) if self.next_calls else None


class _Scripted(Engine):
    """Loads nothing and holds nothing."""

    model_name = "scripted"
    device = "cpu"


class FakeSpeechToText(_Scripted):
    """
    Takes a tone for speech and digital silence for silence; counts time in received audio, never by the clock.

    Each utterance gets the next of `transcripts`, and `default` after the last. `provisional` overrides the provisional
    text of the utterance with the same index (to differ from the final one).
    """

    def __init__(
        self,
        transcripts: Sequence[str] = (),
        *,
        default: str = "你好",
        provisional: dict[int, str] | None = None,
        recognition_s: float = 0.0,
    ) -> None:
        self.transcripts = list(transcripts)
        self.default = default
        self.provisional = provisional or {}
        self.recognition_s = recognition_s
        self.calls = Calls()
        self.failures = _Failures()
        self.heard_bytes = 0
        self.options_seen: list[TranscriptionOptions] = []
        self._utterances = 0
        self._breakers: set[asyncio.Future[None]] = set()

    def fail_next(self, error: Exception, *, after_ms: int = 0) -> None:
        """Make the next call raise once it has heard `after_ms` of audio."""
        self.failures.next_calls.append((error, after_ms))

    def start_outage(self, error: Exception | None = None) -> None:
        """Break active calls, and refuse new ones until `end_outage`."""
        self.failures.outage = error or InferenceUnavailable("the scripted process is away")
        for breaker in self._breakers:
            if not breaker.done():
                breaker.set_exception(self.failures.outage)

    def end_outage(self) -> None:
        self.failures.outage = None

    def transcribe(
        self, audio: AsyncIterator[TranscriptionInput], options: TranscriptionOptions
    ) -> AsyncGenerator[TranscriptEvent]:
        return self._transcribe(audio, options)

    async def _transcribe(
        self, audio: AsyncIterator[TranscriptionInput], options: TranscriptionOptions
    ) -> AsyncGenerator[TranscriptEvent]:
        with self.calls.count():
            failure = self.failures.pop_next()
            if failure is not None and failure[1] == 0:
                raise failure[0]
            self.options_seen.append(options)
            session = _Session(self, options)
            breaker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._breakers.add(breaker)
            try:
                async for item in _until_broken(audio, breaker):
                    for event in session.handle(item):
                        if isinstance(event, ProvisionalTranscript | FinalTranscript) and self.recognition_s:
                            await asyncio.sleep(self.recognition_s)
                        yield event
                    if failure is not None and session.received_ms >= failure[1]:
                        raise failure[0]
                for event in session.finish(is_asked=False):
                    yield event
            finally:
                self._breakers.discard(breaker)
                if breaker.done() and not breaker.cancelled():
                    breaker.exception()
                breaker.cancel()

    def next_transcript(self) -> tuple[int, str]:
        index = self._utterances
        return index, self.transcripts[index] if index < len(self.transcripts) else self.default

    def finish_transcript(self) -> None:
        self._utterances += 1


async def _until_broken(
    audio: AsyncIterator[TranscriptionInput], breaker: asyncio.Future[None]
) -> AsyncGenerator[TranscriptionInput]:
    """Yield from `audio`, but raise the exception of `breaker` as soon as it is set."""
    while True:
        step: asyncio.Future[TranscriptionInput] = asyncio.ensure_future(anext(audio))
        try:
            waiters: set[asyncio.Future[Any]] = {step, breaker}
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
            if breaker.done():
                breaker.result()
            yield step.result()
        except StopAsyncIteration:
            return
        finally:
            # Awaited in any case: an exception that is not retrieved is logged when the task is collected.
            step.cancel()
            await asyncio.wait([step])
            if not step.cancelled():
                step.exception()


class _Session:
    """One stream: endpointing by energy over whole frames."""

    def __init__(self, engine: FakeSpeechToText, options: TranscriptionOptions) -> None:
        self.engine = engine
        self.options = options
        self.received_ms = 0
        self._rest = b""
        self._forget()

    def _forget(self) -> None:
        self._speech_ms = 0
        self._silence_ms = 0
        self._start_ms = 0
        self._end_ms = 0
        self._partial_at_ms = PARTIAL_EVERY_MS
        self._is_started = False
        self._is_provisional = False

    def handle(self, item: TranscriptionInput) -> Iterator[TranscriptEvent]:
        match item:
            case TranscriptionOptions():
                self.options = item
                self.engine.options_seen.append(item)
            case DiscardUtterance():
                self._forget()
            case EndOfUtterance():
                yield from self.finish(is_asked=True)
            case bytes():
                self.engine.heard_bytes += len(item)
                data = self._rest + item
                whole = len(data) // FRAME_BYTES * FRAME_BYTES
                self._rest = data[whole:]
                for start in range(0, whole, FRAME_BYTES):
                    yield from self._handle_frame(data[start : start + FRAME_BYTES])

    def _handle_frame(self, frame: bytes) -> Iterator[TranscriptEvent]:
        self.received_ms += FRAME_MS
        if is_speech(frame):
            yield from self._handle_speech()
        else:
            yield from self._handle_silence()

    def _handle_speech(self) -> Iterator[TranscriptEvent]:
        if self._speech_ms == 0:
            self._start_ms = self.received_ms - FRAME_MS
        self._speech_ms += FRAME_MS
        self._silence_ms = 0
        self._end_ms = self.received_ms
        if self._is_provisional:
            self._is_provisional = False
            yield SpeechResumed()
        if not self._is_started and self._speech_ms >= self.options.min_speech_ms:
            self._is_started = True
            yield SpeechStarted(speech_start_ms=self._start_ms)
        if self._is_started and self._speech_ms >= self._partial_at_ms and not self.options.is_background:
            _, text = self.engine.next_transcript()
            shown = text[: max(1, len(text) * self._partial_at_ms // (self._partial_at_ms + 800))]
            self._partial_at_ms += PARTIAL_EVERY_MS
            yield PartialTranscript(text=shown, language=guess_language(text))

    def _handle_silence(self) -> Iterator[TranscriptEvent]:
        self._silence_ms += FRAME_MS
        if not self._is_started:
            if self._silence_ms >= PROVISIONAL_AFTER_MS:
                self._speech_ms = 0
            return
        is_due = self._silence_ms >= PROVISIONAL_AFTER_MS and not self.options.is_background
        if is_due and not self._is_provisional:
            self._is_provisional = True
            index, text = self.engine.next_transcript()
            said = self.engine.provisional.get(index, text)
            yield ProvisionalTranscript(text=said, language=guess_language(said))
        if self.options.endpointing and self._silence_ms >= self.options.pause_ms:
            yield from self.finish(is_asked=True)

    def finish(self, *, is_asked: bool) -> Iterator[TranscriptEvent]:
        if not self._is_started and not is_asked:
            return
        text = ""
        if self._is_started:
            _, text = self.engine.next_transcript()
            self.engine.finish_transcript()
        yield FinalTranscript(
            text=text,
            language=self.options.language or guess_language(text),
            speech_start_ms=self._start_ms if self._is_started else self.received_ms,
            speech_end_ms=self._end_ms if self._is_started else self.received_ms,
            received_ms=self.received_ms,
        )
        self._forget()


def is_speech(frame: bytes) -> bool:
    return measure_rms(np.frombuffer(frame, "<i2")) >= SPEECH_RMS


def guess_language(text: str) -> str:
    """Return "zh" for a text with a Han character or none at all."""
    return "zh" if any("\u4e00" <= c <= "\u9fff" for c in text) or not text else "en"


def answer_politely(messages: Sequence[Message]) -> str:
    """The default script: repeat the last message, so that answers can be told apart."""
    said = next((m.content for m in reversed(messages) if m.role == "user"), "")
    said = re.sub(r"^[(（][^)）]*[)）] ?", "", said)  # the answer-language hint, which the user did not say
    if guess_language(said) == "en":
        return f"I heard you say: {said}. That sounds good to me, please tell me a little more about it."
    return f"我聽到你說{said}。聽起來很不錯，請再多告訴我一點，我很想知道。"


class FakeLanguageModel(_Scripted):
    """
    Answers from `replies`, then by `answer`, one character or word at a time.

    `hold_after(n)` makes generations wait after their n-th token until `release()`: tests place events in time with it.
    """

    def __init__(
        self,
        replies: Sequence[str] = (),
        *,
        answer: Callable[[Sequence[Message]], str] = answer_politely,
        first_token_s: float = 0.0,
        tokens_per_s: float = 0.0,
        prefill_s: float = 0.0,
    ) -> None:
        self.replies = list(replies)
        self.answer = answer
        self.first_token_s = first_token_s
        self.tokens_per_s = tokens_per_s
        self.prefill_s = prefill_s
        self.calls = Calls()
        self.prefill_calls = Calls()
        self.failures = _Failures()
        self.requests: list[tuple[Message, ...]] = []
        self.options: list[GenerationOptions] = []
        self.prefills: list[tuple[Message, ...]] = []
        self._hold_after: int | None = None
        self._released = asyncio.Event()
        self.is_holding = asyncio.Event()

    def fail_next(self, error: Exception, *, after_tokens: int = 0) -> None:
        self.failures.next_calls.append((error, after_tokens))

    def start_outage(self, error: Exception | None = None) -> None:
        self.failures.outage = error or InferenceUnavailable("the scripted process is away")

    def end_outage(self) -> None:
        self.failures.outage = None

    def hold_after(self, tokens: int) -> None:
        self._hold_after = tokens
        self._released.clear()
        self.is_holding.clear()

    def release(self) -> None:
        self._hold_after = None
        self._released.set()

    def generate(self, messages: Sequence[Message], options: GenerationOptions) -> AsyncGenerator[GenerationEvent]:
        self.options.append(options)
        return self._generate(tuple(messages), options)

    async def _generate(
        self, messages: tuple[Message, ...], options: GenerationOptions
    ) -> AsyncGenerator[GenerationEvent]:
        with self.calls.count():
            self.requests.append(messages)
            failure = self.failures.pop_next()
            if failure is not None and failure[1] == 0:
                raise failure[0]
            reply = self.replies.pop(0) if self.replies else self.answer(messages)
            await asyncio.sleep(self.first_token_s)
            tokens = split_tokens(reply)
            for count, token in enumerate(tokens[: options.max_tokens]):
                if self._hold_after is not None and count >= self._hold_after:
                    self.is_holding.set()
                    await self._released.wait()
                if failure is not None and count >= failure[1]:
                    raise failure[0]
                yield TextDelta(token)
                await asyncio.sleep(1 / self.tokens_per_s if self.tokens_per_s else 0)
            is_cut = len(tokens) > options.max_tokens
            yield GenerationFinished(
                reason="length" if is_cut else "stop",
                prompt_tokens=sum(len(m.content) for m in messages),
                completion_tokens=min(len(tokens), options.max_tokens),
            )

    async def prefill(self, messages: Sequence[Message]) -> None:
        with self.prefill_calls.count():
            self.prefills.append(tuple(messages))
            await asyncio.sleep(self.prefill_s)


def split_tokens(text: str) -> list[str]:
    """Split as a tokenizer might: a Han character, or a word with the blank before it."""
    tokens: list[str] = []
    for character in text:
        is_word = character.isascii() and character.isalnum()
        if is_word and tokens and tokens[-1][-1].isascii() and (tokens[-1][-1].isalnum() or tokens[-1] == " "):
            tokens[-1] += character
        else:
            tokens.append(character)
    return tokens


class FakeTextToSpeech(_Scripted):
    """
    Hums a vowel-like tone as long as the text would take to speak. Refuses what the real engines refuse.

    `real_time_factor` is how long synthesis takes per second of audio; 0: no time.
    """

    VOICES = (
        VoiceInfo(key="zf_xiaoxiao", name="曉曉", language="zh", gender="female"),
        VoiceInfo(key="zm_yunxi", name="雲希", language="zh", gender="male"),
        VoiceInfo(key="af_heart", name="Heart", language="en", gender="female"),
        VoiceInfo(key="am_michael", name="Michael", language="en", gender="male"),
    )

    def __init__(
        self,
        *,
        real_time_factor: float = 0.0,
        ms_per_character: int = 180,
        sample_rate_hz: int = 24_000,
        chunk_ms: int = 200,
    ) -> None:
        self.real_time_factor = real_time_factor
        self.ms_per_character = ms_per_character
        self.sample_rate_hz = sample_rate_hz
        self.chunk_ms = chunk_ms
        #: Like an engine that is short of memory: synthesises everything at fast quality.
        self.is_short_of_memory = False
        #: Like an engine that clones: hums at a pitch computed from the recording.
        self.can_clone = False
        self.calls = Calls()
        self.failures = _Failures()
        self.requests: list[tuple[str, SynthesisOptions]] = []

    def fail_next(self, error: Exception, *, after_ms: int = 0) -> None:
        self.failures.next_calls.append((error, after_ms))

    def start_outage(self, error: Exception | None = None) -> None:
        self.failures.outage = error or InferenceUnavailable("the scripted process is away")

    def end_outage(self) -> None:
        self.failures.outage = None

    def synthesise(self, text: str, options: SynthesisOptions) -> AsyncGenerator[AudioChunk]:
        return self._synthesise(text, options)

    async def _synthesise(self, text: str, options: SynthesisOptions) -> AsyncGenerator[AudioChunk]:
        with self.calls.count():
            self.requests.append((text, options))
            failure = self.failures.pop_next()
            if failure is not None and failure[1] == 0:
                raise failure[0]
            quality = Quality.FAST if self.is_short_of_memory else options.quality
            pitch_hz = self._pitch_hz(text, options)
            total_ms = int(self.measure_ms(text) / options.speed)
            made_ms = 0
            while made_ms < total_ms:
                if failure is not None and made_ms >= failure[1]:
                    raise failure[0]
                step_ms = min(self.chunk_ms, total_ms - made_ms)
                await asyncio.sleep(step_ms / 1000 * self.real_time_factor)
                yield AudioChunk(self._hum(pitch_hz, made_ms, step_ms), self.sample_rate_hz, quality)
                made_ms += step_ms

    def measure_ms(self, text: str) -> int:
        """Return how long `text` takes to speak: a Han character is a syllable, a Latin letter a third of one."""
        thirds = sum(3 if c >= "\u2e80" else 1 for c in text if c.isalnum())
        return thirds * self.ms_per_character // 3

    def _hum(self, pitch_hz: float, start_ms: int, length_ms: int) -> bytes:
        """Return a tone with two overtones, at a pitch that identifies the voice, with a pulse per syllable."""
        rate = self.sample_rate_hz
        samples = array.array("h", bytes(count_bytes(length_ms, rate)))
        first = rate * start_ms // 1000
        for n in range(len(samples)):
            t = (first + n) / rate
            phase = 2 * math.pi * pitch_hz * t
            loudness = 0.6 + 0.4 * math.sin(2 * math.pi * 1000 / self.ms_per_character * t)
            tone = math.sin(phase) + 0.5 * math.sin(2 * phase) + 0.25 * math.sin(3 * phase)
            samples[n] = int(5500 * loudness * tone)
        return samples.tobytes()

    def _pitch_hz(self, text: str, options: SynthesisOptions) -> float:
        if options.reference is not None and self.can_clone:
            check_reference(options.reference)
            return 110 + sum(options.reference.pcm[:1000]) % 12 * 10
        known = {voice.key for voice in self.VOICES}
        default = next(voice.key for voice in self.VOICES if voice.language == guess_language(text))
        shares = choose_shares(options.voice, known, default=default)
        if options.style:
            return 110 + float(np.clip(read_style(options.style).mean(), 0, 1)) * 110
        return sum(compute_pitch_hz(voice) * weight for voice, weight in shares.items())

    async def list_voices(self) -> tuple[VoiceInfo, ...]:
        return self.VOICES

    async def list_styles(self) -> Mapping[str, bytes]:
        """Return styles that hum as the voices do."""
        return {
            voice.key: np.full(STYLE_VALUES, (compute_pitch_hz(voice.key) - 110) / 110, "<f4").tobytes()
            for voice in self.VOICES
        }


def compute_pitch_hz(voice: str) -> float:
    return 110 + sum(voice.encode()) % 12 * 10


class FakeSpeakerEncoder(_Scripted):
    """
    Embeds the spectrum: the same recording has the same embedding, the halves of a hum have nearly the same, other
    pitches have others.

    `speakers` are names: each call uses up the next and returns that name's embedding (see `make_embedding`).
    """

    ENCODER = "fake-1"

    def __init__(self) -> None:
        self.speakers: list[str] = []
        self.calls = Calls()
        self.failures = _Failures()
        self._released = asyncio.Event()
        self._released.set()
        self.is_holding = asyncio.Event()

    def fail_next(self, error: Exception) -> None:
        self.failures.next_calls.append((error, 0))

    def start_outage(self, error: Exception | None = None) -> None:
        self.failures.outage = error or InferenceUnavailable("the scripted process is away")

    def end_outage(self) -> None:
        self.failures.outage = None

    def hold(self) -> None:
        """Make calls wait until `release`."""
        self._released.clear()
        self.is_holding.clear()

    def release(self) -> None:
        self._released.set()

    async def embed(self, pcm: bytes, *, sample_rate_hz: int = MICROPHONE_SAMPLE_RATE_HZ) -> SpeakerEmbedding:
        with self.calls.count():
            if failure := self.failures.pop_next():
                raise failure[0]
            if not self._released.is_set():
                self.is_holding.set()
                await self._released.wait()
            check_recording(pcm, sample_rate_hz)
            if self.speakers:
                return make_embedding(self.speakers.pop(0))
            samples = np.frombuffer(pcm, "<i2").astype(np.float64)
            if measure_rms(samples) < SPEECH_RMS / 4:
                raise InferenceError("there is no speech in the recording")
            # 16 Hz a band, up to 4 kHz.
            count = int(sample_rate_hz * 2 * EMBEDDING_VALUES // 8000)
            frames = samples[: len(samples) // count * count].reshape(-1, count) * np.hanning(count)
            spectrum = np.abs(np.fft.rfft(frames, n=sample_rate_hz // 16, axis=1)).mean(axis=0)[:EMBEDDING_VALUES]
            return _to_embedding(spectrum)


def make_embedding(speaker: str) -> SpeakerEmbedding:
    """Return the embedding of a fictional speaker, different for every name."""
    generator = np.random.default_rng(list(speaker.encode()))
    return _to_embedding(generator.normal(size=EMBEDDING_VALUES))


def _to_embedding(values: Any) -> SpeakerEmbedding:
    return SpeakerEmbedding(tuple((values / np.linalg.norm(values)).tolist()), FakeSpeakerEncoder.ENCODER)


def create_stt(**_: object) -> FakeSpeechToText:
    """`AVATAR_FAKE_TRANSCRIPTS` lists the transcripts of successive utterances, separated by "|"."""
    script = os.environ.get("AVATAR_FAKE_TRANSCRIPTS", "")
    return FakeSpeechToText(
        [text for text in script.split("|") if text],
        recognition_s=_read_float("AVATAR_FAKE_RECOGNITION_S", 0.05),
    )


def create_llm(**_: object) -> FakeLanguageModel:
    return FakeLanguageModel(
        first_token_s=_read_float("AVATAR_FAKE_FIRST_TOKEN_S", 0.1),
        tokens_per_s=_read_float("AVATAR_FAKE_TOKENS_PER_S", 30.0),
    )


def create_tts(**_: object) -> FakeTextToSpeech:
    """With `AVATAR_FAKE_SHORT_OF_MEMORY=yes` high quality is never available."""
    engine = FakeTextToSpeech(real_time_factor=_read_float("AVATAR_FAKE_REAL_TIME_FACTOR", 0.1))
    engine.is_short_of_memory = os.environ.get("AVATAR_FAKE_SHORT_OF_MEMORY") == "yes"
    return engine


def create_encoder(**_: object) -> FakeSpeakerEncoder:
    return FakeSpeakerEncoder()


def _read_float(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        return float(text) if text else default
    except ValueError:
        raise ValueError(f"{name}={text}: expected a number") from None
