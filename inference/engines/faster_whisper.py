"""
Recognition with faster-whisper: Silero VAD on the stream, endpointing, and Whisper on as short a window as possible.

Whisper's encoder normally reads 30 s, however short the speech. Drafts get the speech plus two seconds, a fifth of the
cost for an utterance of three; final transcripts the speech plus four, at least ten in all: as accurate as 30
(measurements.md), and done within the pause. On a machine too busy for that they get a draft's window until there is
time again. A transcript with a defect is decoded again in the full window, if that is in time. A window shorter than
the audio plus a second makes Whisper loop.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib.util
import logging
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import faster_whisper
import numpy as np
import onnxruntime
from faster_whisper.tokenizer import Tokenizer

from inference.audio.pcm import Samples, float_from_pcm
from inference.config import InferenceConfig
from inference.endpointing import WINDOW_MS, Endpoint, Endpointer
from inference.engines.background_gate import BackgroundGate
from inference.engines.base import Engine
from inference.engines.chinese_script import to_traditional
from inference.engines.priority_worker import Priority, Worker
from inference.engines.second_pass_budget import SecondPassBudget
from inference.engines.transcript_checks import (
    OPERATORS,
    OPERATORS_BETWEEN_NUMBERS,
    Defect,
    check_transcript,
    drop_repetition,
    has_operator,
)
from inference.interfaces import (
    MICROPHONE_SAMPLE_RATE_HZ,
    REQUESTS_WAITING,
    DiscardUtterance,
    EndOfUtterance,
    FinalTranscript,
    InferenceError,
    PartialTranscript,
    ProvisionalTranscript,
    SpeechResumed,
    SpeechStarted,
    TranscriptEvent,
    TranscriptionInput,
    TranscriptionOptions,
)
from inference.models.store import model_dir

logger = logging.getLogger(__name__)

T = TypeVar("T")

SAMPLES_PER_MS = MICROPHONE_SAMPLE_RATE_HZ // 1000
WINDOW_SAMPLES = WINDOW_MS * SAMPLES_PER_MS
#: Samples of the previous window that Silero reads.
CONTEXT_SAMPLES = 64
#: Windows per turn of the event loop, about 2 ms: an upload arrives as 16 s in one item.
WINDOWS_PER_SLICE = 8
#: Audio kept from before the speech: the VAD detects a soft consonant late.
PREROLL_MS = 320
#: Audio kept after the speech.
POSTROLL_MS = 160
#: New audio before the next partial transcript.
PARTIAL_EVERY_MS = 480
#: Whisper reads at most 30 s: longer speech is settled in pieces, cut where it is quietest.
PIECE_MS = 24_000
PIECE_SEARCH_MS = 6_000
#: In the background: a running recognition cannot be preempted, so it is kept short. A clip of 12 s, whose transcript
#: an engine clones with, stays whole.
BACKGROUND_PIECE_MS = 15_000
FRAME_SAMPLES = 160  # of Whisper's spectrum: 10 ms
FINAL_BEAM_SIZE = 2
SECOND_BEAM_SIZE = 5
#: The minimum window, and its margin over the speech.
DRAFT_WINDOW_FRAMES, DRAFT_MARGIN_FRAMES = 600, 200
FINAL_WINDOW_FRAMES, FINAL_MARGIN_FRAMES = 1000, 400
MAX_WINDOW_FRAMES = 3000
#: Speech that fits the minimum window of a final transcript: durations of its passes are comparable.
SHORT_SAMPLES = (FINAL_WINDOW_FRAMES - FINAL_MARGIN_FRAMES) * FRAME_SAMPLES
#: Silence added to the pre-roll of a final transcript. Of 148 clips: 13.7 % CER with it, 14.2 without.
LEAD_SAMPLES = 300 * SAMPLES_PER_MS
#: "This is not speech": 0.6 in Whisper itself (openai/whisper, transcribe.py). Loud noise measured 0.52 to 0.90,
#: speech of 26 sentences at most 0.35.
NO_SPEECH_PROBABILITY = 0.45
NO_SPEECH_LOG_PROBABILITY = -1.0
#: Arithmetic that suits the device. On a GPU short of memory, int8_float16 takes half of it.
COMPUTE_TYPES = {"cpu": "int8", "cuda": "float16"}
#: Drafts decoded in one batch: a GPU has the capacity, cores have not.
DRAFT_BATCH = {"cpu": 1, "cuda": 8}

#: Makes Whisper write Traditional characters and punctuation.
PROMPT = {"zh": "以下是台灣的繁體中文對話，有標點符號。", "en": ""}


@dataclass(frozen=True, slots=True)
class Recognition:
    text: str
    language: str


@dataclass(frozen=True, slots=True)
class _Decoding:
    """Whisper's decoding of a window. `log_probability` is the average over its tokens."""

    text: str
    language: str
    log_probability: float = 0.0
    tokens: int = 0
    duration_s: float = 0.0

    def check(self) -> Defect | None:
        if not self.text:
            return None
        return check_transcript(self.text, log_probability=self.log_probability, duration_s=self.duration_s)

    def settle(self) -> Recognition:
        text = drop_repetition(self.text, tokens=self.tokens, duration_s=self.duration_s)
        return Recognition(_full_width(to_traditional(text)) if self.language == "zh" else text, self.language)


@dataclass(eq=False, slots=True)
class _Draft:
    """Speech that waits for a draft, and the draft once it is decoded."""

    samples: Samples
    language: str | None
    recognition: Recognition | None = None


def create_stt(*, model: str, config: InferenceConfig) -> FasterWhisper:
    if config.device == "cuda":
        load_cublas()
    return FasterWhisper(
        model_dir(config.models_dir, model),
        threads=config.threads,
        device=config.device,
        compute_type=config.stt_compute_type or COMPUTE_TYPES[config.device],
    )


def load_cublas() -> None:
    """
    Load CUDA 12's cuBLAS from its package, so that CTranslate2 finds it.

    CTranslate2 is built for CUDA 12 and opens the library by its name alone; torch and vLLM bring CUDA 13's. A loaded
    library is found by name. Without the package the system's own is used, or CTranslate2 reports what it misses.
    """
    nvidia = importlib.util.find_spec("nvidia")
    for folder in nvidia.submodule_search_locations or () if nvidia is not None else ():
        if (library := Path(folder) / "cublas" / "lib" / "libcublas.so.12").exists():
            ctypes.CDLL(str(library))  # not global: torch would take its functions for those of CUDA 13's
            return


class VoiceActivity:
    """Silero VAD with its state, one per stream: probability of speech per window of 512 samples. 0.2 ms a window."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self.reset()

    def reset(self) -> None:
        self._h = np.zeros((1, 1, 128), np.float32)
        self._c = np.zeros((1, 1, 128), np.float32)
        self._context = np.zeros(CONTEXT_SAMPLES, np.float32)

    def probability(self, window: Samples) -> float:
        frame = np.concatenate([self._context, window])[None]
        probabilities, self._h, self._c = self._session.run(None, {"input": frame, "h": self._h, "c": self._c})
        self._context = window[-CONTEXT_SAMPLES:]
        return float(np.ravel(probabilities)[0])


class FasterWhisper(Engine):
    """
    `SpeechToText` on CTranslate2.

    One thread decodes, final transcripts before drafts; the VAD runs in the event loop.
    """

    def __init__(self, folder: Path, *, threads: int, device: str = "cpu", compute_type: str = "int8") -> None:
        self.model_name = f"{folder.name} ({compute_type})"
        self.device = device
        self._model = faster_whisper.WhisperModel(
            str(folder), device=device, compute_type=compute_type, cpu_threads=threads, local_files_only=True
        )
        self._operators: tuple[list[int], list[int]] | None = None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        vad = Path(faster_whisper.__file__).parent / "assets" / "silero_vad_v6.onnx"
        self._vad = onnxruntime.InferenceSession(str(vad), options, providers=["CPUExecutionProvider"])
        self._worker = Worker("whisper")
        self._budget = SecondPassBudget()
        self._clock = time.monotonic
        self.gate = BackgroundGate()
        self._draft_batch = DRAFT_BATCH[device]
        self._drafts: list[_Draft] = []

    async def warm_up(self) -> None:
        noise = np.random.default_rng(0).normal(0, 0.01, 3 * MICROPHONE_SAMPLE_RATE_HZ).astype(np.float32)
        for language in ("zh", "en"):
            await self.recognise_soon(noise, language)
        self._budget = SecondPassBudget()  # the first pass after loading is slower
        VoiceActivity(self._vad).probability(noise[:WINDOW_SAMPLES])

    @property
    def figures(self) -> dict[str, float]:
        """The number of steps that wait for the thread."""
        return {REQUESTS_WAITING: float(self._worker.waiting)}

    async def close(self) -> None:
        await asyncio.to_thread(self._worker.close)

    async def transcribe(
        self, audio: AsyncIterator[TranscriptionInput], options: TranscriptionOptions
    ) -> AsyncGenerator[TranscriptEvent]:
        session = _Session(self, options)
        feeding = asyncio.create_task(session.feed(audio))
        try:
            while (event := await session.events.get()) is not None:
                yield event
            await feeding
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            await session.close()

    async def recognise_soon(self, samples: Samples, language: str | None) -> Recognition:
        """
        Recognise up to 28 s of float samples at 16 kHz.

        An empty text means that Whisper classified it as no speech. A transcript with a defect is decoded again in the
        full window of 30 s with a wider beam, which costs a second on two idle cores, unless that would be late; a
        repetition in the last pass is dropped.
        """
        return await self._recognise(samples, language, Priority.FINAL)

    async def recognise_in_background(self, samples: Samples, language: str | None) -> Recognition:
        """Recognise as a background job. Once begun it is not preempted: CTranslate2 cannot stop."""
        with self.gate.background_job() as job:
            await job.wait_for_turn()
            return await self._recognise(samples, language, job.priority)

    async def _recognise(self, samples: Samples, language: str | None, priority: Priority) -> Recognition:
        is_live = priority is Priority.FINAL
        asked_at = self._clock()
        is_wide = self._budget.is_wide or not is_live
        first, first_s = await self._worker.run(
            lambda: self._time(lambda: self._first_pass(samples, language, is_wide=is_wide)), priority
        )
        elapsed_s = self._clock() - asked_at
        if is_live and len(samples) <= SHORT_SAMPLES:
            self._budget.note_first(elapsed_s, was_wide=is_wide)
        if (defect := first.check()) is None:
            return first.settle()
        is_awaited = self._worker.has_waiting(Priority.FINAL)
        if is_live and not self._budget.allows_second(first_s, elapsed_s=elapsed_s, is_awaited=is_awaited):
            logger.debug("no time for a second pass over %.1f s of speech: %s", first.duration_s, defect.name)
            return first.settle()
        # Each pass is queued on its own: a speaker who continues cancels the second.
        second, second_s = await self._worker.run(
            lambda: self._time(lambda: self._second_pass(samples, first, defect)), priority
        )
        if is_wide and len(samples) <= SHORT_SAMPLES:
            self._budget.note_second(second_s, first_s=first_s)
        return second.settle()

    def _time(self, decode: Callable[[], _Decoding]) -> tuple[_Decoding, float]:
        began = self._clock()
        return decode(), self._clock() - began

    async def draft(self, samples: Samples, language: str | None) -> Recognition:
        """Recognise quickly, batched with the other drafts that wait: good enough for a partial transcript."""
        draft = _Draft(samples, language)
        self._drafts.append(draft)
        try:
            # The first draft in the queue decodes a batch; the others of the batch find theirs done.
            return await self._worker.run(lambda: self._do_draft(draft), Priority.PARTIAL)
        finally:
            with suppress(ValueError):
                self._drafts.remove(draft)

    @property
    def is_busy(self) -> bool:
        """Whether a draft requested now would wait in the queue."""
        return self._draft_batch == 1 and self._worker.has_work_waiting

    def voice_activity(self) -> VoiceActivity:
        return VoiceActivity(self._vad)

    def _first_pass(self, samples: Samples, language: str | None, *, is_wide: bool) -> _Decoding:
        """Decode as a final transcript; out of device memory, as a draft."""
        padded = np.pad(samples, (LEAD_SAMPLES, 0))
        least = (FINAL_WINDOW_FRAMES, FINAL_MARGIN_FRAMES) if is_wide else (DRAFT_WINDOW_FRAMES, DRAFT_MARGIN_FRAMES)
        window_frames = _fit_window(len(padded), *least)
        try:
            (decoding,) = self._decode([padded], language, beam_size=FINAL_BEAM_SIZE, window_frames=window_frames)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        else:
            return decoding
        # Outside the except block: the exception's frames hold the spectrum on the device.
        logger.warning("out of the device's memory with %.1f s of speech", len(samples) / MICROPHONE_SAMPLE_RATE_HZ)
        (decoding,) = self._decode([samples], language, beam_size=1)
        return decoding

    def _second_pass(self, samples: Samples, first: _Decoding, defect: Defect) -> _Decoding:
        """Decode in the full window; return the first decoding if the device has no memory for it."""
        logger.debug("second pass over %.1f s of speech: %s", first.duration_s, defect.name)
        padded = np.pad(samples, (LEAD_SAMPLES, 0))
        options: dict[str, Any] = {"beam_size": SECOND_BEAM_SIZE, "window_frames": MAX_WINDOW_FRAMES}
        try:
            (second,) = self._decode([padded], first.language, **options, in_words=defect is Defect.OPERATOR)
            if has_operator(second.text):  # which the first pass had not
                (second,) = self._decode([padded], first.language, **options, in_words=True)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            logger.warning("out of the device's memory in the second pass over %.1f s of speech", first.duration_s)
            return first
        return second

    def _do_draft(self, draft: _Draft) -> Recognition:
        if draft.recognition is None:
            waiting = [other for other in list(self._drafts) if other.recognition is None and other is not draft]
            # A batch has one window and one prompt: speech of one language, or of unknown language.
            alike = [other for other in waiting if other.language == draft.language]
            self._draft_together([draft, *alike[: self._draft_batch - 1]])
        assert draft.recognition is not None  # noqa: S101 — for the type checker: set above
        return draft.recognition

    def _draft_together(self, batch: Sequence[_Draft]) -> None:
        """Decode a batch; out of device memory, the first draft alone."""
        try:
            decodings = self._decode([each.samples for each in batch], batch[0].language, beam_size=1)
        except RuntimeError as error:
            if len(batch) == 1 or not is_out_of_memory(error):
                raise
            decodings = None
        if decodings is None:
            self._draft_together(batch[:1])
            return
        for each, decoding in zip(batch, decodings, strict=True):
            each.recognition = decoding.settle()

    def _decode(
        self,
        utterances: Sequence[Samples],
        language: str | None,
        *,
        beam_size: int,
        window_frames: int = 0,
        in_words: bool = False,
    ) -> list[_Decoding]:
        """Decode a batch, in a draft's window if none is given; `in_words` suppresses "x" and "-"."""
        lengths = [len(samples) for samples in utterances]
        window_frames = window_frames or _fit_window(max(lengths), DRAFT_WINDOW_FRAMES, DRAFT_MARGIN_FRAMES)
        encoded = self._encode(utterances, window_frames)
        if language is not None:
            return self._generate(encoded, lengths, language, beam_size, in_words=in_words)
        languages = [_likelier(probabilities) for probabilities in self._model.model.detect_language(encoded)]
        if len(set(languages)) == 1:
            return self._generate(encoded, lengths, languages[0], beam_size, in_words=in_words)
        # Prompts of a batch have one length: one batch per language.
        decodings: list[_Decoding | None] = [None] * len(lengths)
        for code in sorted(set(languages)):
            places = [place for place, likely in enumerate(languages) if likely == code]
            part = self._encode([utterances[place] for place in places], window_frames)
            found = self._generate(part, [lengths[place] for place in places], code, beam_size, in_words=in_words)
            for place, decoding in zip(places, found, strict=True):
                decodings[place] = decoding
        return [decoding for decoding in decodings if decoding is not None]

    def _encode(self, utterances: Sequence[Samples], window_frames: int) -> Any:
        # Pad with silence, not with zeros in the spectrum: Whisper takes those for noise and writes "Could Could".
        length = window_frames * FRAME_SAMPLES
        features = [
            self._model.feature_extractor(np.pad(samples[:length], (0, max(0, length - len(samples)))))
            for samples in utterances
        ]
        return self._model.encode(np.stack([each[:, :window_frames] for each in features]))

    def _operator_tokens(self, *, in_words: bool) -> list[int]:
        """Return the tokens of arithmetic symbols; `in_words`: also of those that are operators between numbers."""
        if self._operators is None:
            tokenizer = self._model.hf_tokenizer
            texts = [(token, tokenizer.decode([token])) for token in range(tokenizer.token_to_id("<|endoftext|>"))]
            # A symbol of several bytes may be several tokens: suppressing the first suppresses it.
            starts = {
                tokenizer.encode(space + symbol, add_special_tokens=False).ids[0]
                for symbol in OPERATORS
                for space in ("", " ")
            }
            symbols = [token for token, text in texts if set(text) & set(OPERATORS)]
            starts -= {token for token, text in texts if not text.strip()}
            between = [token for token, text in texts if text.strip() in set(OPERATORS_BETWEEN_NUMBERS)]
            self._operators = (sorted({*symbols, *starts}), between)
        always, between = self._operators
        return [*always, *between] if in_words else always

    def _generate(
        self, encoded: Any, lengths: Sequence[int], language: str, beam_size: int, *, in_words: bool
    ) -> list[_Decoding]:
        model = self._model
        tokenizer = Tokenizer(model.hf_tokenizer, True, task="transcribe", language=language)
        previous = tokenizer.encode(" " + PROMPT[language]) if PROMPT[language] else []
        prompt = model.get_prompt(tokenizer, previous, without_timestamps=True)
        seconds = [length / MICROPHONE_SAMPLE_RATE_HZ for length in lengths]
        results = model.model.generate(
            encoded,
            [prompt] * len(lengths),
            beam_size=beam_size,
            # Speech has at most some twelve tokens a second; a loop has more.
            max_length=min(448, len(prompt) + 16 + int(12 * max(seconds))),
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=[-1, *self._operator_tokens(in_words=in_words)],
        )
        return [
            _judge(tokenizer.decode(result.sequences_ids[0]).strip(), language, result, duration_s)
            for result, duration_s in zip(results, seconds, strict=True)
        ]


def _fit_window(samples: int, least_frames: int, margin_frames: int) -> int:
    return min(MAX_WINDOW_FRAMES, max(least_frames, samples // FRAME_SAMPLES + margin_frames))


def is_out_of_memory(error: RuntimeError) -> bool:
    """CTranslate2 raises a plain RuntimeError: "CUDA failed with error out of memory"."""
    return "out of memory" in str(error)


def _judge(text: str, language: str, result: Any, duration_s: float) -> _Decoding:
    score = result.scores[0]
    is_silence = result.no_speech_prob > NO_SPEECH_PROBABILITY and score < NO_SPEECH_LOG_PROBABILITY
    if is_silence or not any(character.isalnum() for character in text):
        return _Decoding("", language)
    return _Decoding(text, language, score, len(result.sequences_ids[0]), duration_s)


def _likelier(probabilities: list[tuple[str, float]]) -> str:
    """Return "zh" or "en", whichever is likelier: of Whisper's 99 languages the product supports two."""
    known = {name.strip("<|>"): probability for name, probability in probabilities}
    return "en" if known.get("en", 0.0) > known.get("zh", 0.0) + known.get("yue", 0.0) else "zh"


def _full_width(text: str) -> str:
    """Make punctuation next to Chinese full-width; Whisper mixes both."""
    marks = str.maketrans(",?!;:", "，？！；：")
    return re.sub(
        r"(?<=[^\x00-\x7f])\s*[,?!;:]\s*|[,?!;:]\s*(?=[^\x00-\x7f])", lambda m: m[0].strip().translate(marks), text
    )


class _Recording:
    """A buffer of samples: appends at the end and drops at the start in amortised constant time per sample."""

    def __init__(self) -> None:
        self._buffer = np.zeros(8 * MICROPHONE_SAMPLE_RATE_HZ, np.float32)
        self._start = self._end = 0

    def __len__(self) -> int:
        return self._end - self._start

    def append(self, samples: Samples) -> None:
        if self._end + len(samples) > len(self._buffer):
            kept = self._buffer[self._start : self._end]
            # Twice the needed size: a sample is moved once on average.
            self._buffer = np.zeros(max(len(self._buffer), 2 * (len(kept) + len(samples))), np.float32)
            self._buffer[: len(kept)] = kept
            self._start, self._end = 0, len(kept)
        self._buffer[self._end : self._end + len(samples)] = samples
        self._end += len(samples)

    def drop(self, count: int) -> None:
        """Drop the oldest `count` samples."""
        self._start = min(self._end, self._start + count)

    def read(self, start: int, stop: int) -> Samples:
        """Return a copy of samples by their indices among those that are left."""
        return self._buffer[self._start + start : min(self._end, self._start + stop)].copy()


class _Tasks:
    """The tasks of one stream. Logs exceptions that no caller awaits any more; no task outlives `close`."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._settle)
        return task

    def _settle(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("recognition failed", exc_info=error)

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


class _Session:
    """One stream: windows in, events out. Runs in the event loop, but for decoding in the engine's thread."""

    def __init__(self, engine: FasterWhisper, options: TranscriptionOptions) -> None:
        self.events: asyncio.Queue[TranscriptEvent | None] = asyncio.Queue()
        self._engine = engine
        self._is_background = options.is_background
        self._recognise = engine.recognise_in_background if options.is_background else engine.recognise_soon
        self._vad = engine.voice_activity()
        self._endpointer = Endpointer(options)
        self._pending = np.zeros(0, np.float32)  # less than one window
        self._audio = _Recording()  # from _audio_start_ms on
        self._audio_start_ms = 0
        self._settled: list[str] = []  # transcripts of pieces already cut off a long utterance
        self._language: str | None = None
        self._windows = 0
        self._tasks = _Tasks()
        self._partial: asyncio.Task[None] | None = None
        self._partial_at_ms = 0
        self._final: asyncio.Task[Recognition] | None = None
        self._announcing: asyncio.Task[None] | None = None
        self._announced: Recognition | None = None

    async def feed(self, audio: AsyncIterator[TranscriptionInput]) -> None:
        try:
            async for item in audio:
                match item:
                    case bytes():
                        await self._feed_samples(float_from_pcm(item))
                    case TranscriptionOptions():
                        self._endpointer.options = item
                    case EndOfUtterance():
                        await self._end_now()
                    case DiscardUtterance():
                        self._forget()
            if self._endpointer.is_in_utterance:
                await self._end_now()
        finally:
            self.events.put_nowait(None)

    async def close(self) -> None:
        await self._tasks.close()

    async def _feed_samples(self, samples: Samples) -> None:
        self._pending = np.concatenate([self._pending, samples])
        while len(self._pending) >= WINDOW_SAMPLES:
            window, self._pending = self._pending[:WINDOW_SAMPLES], self._pending[WINDOW_SAMPLES:]
            await self._feed_window(window)
            self._windows += 1
            if self._windows % WINDOWS_PER_SLICE == 0:
                await asyncio.sleep(0)

    async def _feed_window(self, window: Samples) -> None:
        self._audio.append(window)
        endpointer = self._endpointer
        match endpointer.feed(self._vad.probability(window)):
            case Endpoint.SPEECH_STARTED:
                self._partial_at_ms = endpointer.position_ms
                self.events.put_nowait(SpeechStarted(endpointer.speech_start_ms))
            case Endpoint.PAUSE_BEGAN if not self._is_background:
                self._start_final(announce=True)
            case Endpoint.SPEECH_RESUMED:
                self._drop_final()
            case Endpoint.UTTERANCE_ENDED:
                await self._finish()
            case None:
                if endpointer.is_in_utterance:
                    await self._settle_long_speech()
                    self._start_partial()
                else:
                    self._keep_preroll()

    # --- partial ---

    def _start_partial(self) -> None:
        """
        Start a partial transcript unless the queue is busy: a late one is useless.

        Not during silence, which may be the pause that ends the utterance: its recognition would have to wait. Not in
        the background, where partial transcripts are not used.
        """
        if self._is_background or self._endpointer.silence_ms > 0:
            return
        position_ms = self._endpointer.position_ms
        is_due = position_ms - self._partial_at_ms >= PARTIAL_EVERY_MS
        if not is_due or self._final is not None or self._engine.is_busy:
            return
        if self._partial is not None and not self._partial.done():
            return
        self._partial_at_ms = position_ms
        self._partial = self._tasks.start(self._say_partial(self._speech()))

    async def _say_partial(self, samples: Samples) -> None:
        recognition = await self._engine.draft(samples, self._chosen_language)
        if recognition.text:
            self.events.put_nowait(PartialTranscript(self._with_settled(recognition), recognition.language))

    # --- final ---

    def _start_final(self, *, announce: bool) -> None:
        self._drop_partial()
        self._final = self._tasks.start(self._recognise_final(self._speech()))
        if announce:
            self._announcing = self._tasks.start(self._announce(self._final))

    async def _recognise_final(self, samples: Samples) -> Recognition:
        recognition = await self._recognise(samples, self._chosen_language)
        return replace(recognition, text=self._with_settled(recognition))

    async def _announce(self, final: asyncio.Task[Recognition]) -> None:
        await asyncio.wait({final})
        if final.cancelled() or final.exception() is not None:
            return  # `_finish` raises it if the utterance ends here
        recognition = final.result()
        if self._final is final and recognition.text:
            self._announced = recognition
            self.events.put_nowait(ProvisionalTranscript(recognition.text, recognition.language))

    def _drop_final(self) -> None:
        """Cancel the recognition: the speaker continues."""
        for task in (self._announcing, self._final):
            if task is not None:
                task.cancel()
        self._announcing = self._final = None
        if self._announced is not None:
            self._announced = None
            self.events.put_nowait(SpeechResumed())

    async def _end_now(self) -> None:
        """End the utterance on request; the last incomplete window counts, too."""
        endpointer = self._endpointer
        if not endpointer.is_in_utterance:
            self._report(Recognition("", self._language or "zh"))
            self._forget()
            return
        if self._final is None:
            self._start_final(announce=False)
        endpointer.reset()
        await self._finish()

    async def _finish(self) -> None:
        """Wait for the recognition that began in the pause, and report it."""
        final = self._final
        if final is None:  # in the background, or endpointing was enabled during a pause
            self._start_final(announce=False)
            final = self._final
        assert final is not None  # noqa: S101 — for the type checker: set two lines above
        try:
            recognition = await final
        except RuntimeError as error:
            raise InferenceError(f"recognition failed: {error}") from error
        self._report(recognition)
        self._forget()

    def _report(self, recognition: Recognition) -> None:
        endpointer = self._endpointer
        self.events.put_nowait(
            FinalTranscript(
                text=recognition.text,
                language=recognition.language,
                speech_start_ms=endpointer.speech_start_ms,
                speech_end_ms=endpointer.speech_end_ms,
                received_ms=endpointer.position_ms + len(self._pending) // SAMPLES_PER_MS,
            )
        )

    # --- audio ---

    @property
    def _chosen_language(self) -> str | None:
        return self._endpointer.options.language

    def _with_settled(self, recognition: Recognition) -> str:
        joint = "" if recognition.language == "zh" else " "
        return joint.join(text for text in (*self._settled, recognition.text) if text)

    def _speech(self) -> Samples:
        """Return the utterance so far with pre-roll and post-roll."""
        start_ms = max(self._audio_start_ms, self._endpointer.speech_start_ms - PREROLL_MS)
        end_ms = self._endpointer.speech_end_ms + POSTROLL_MS
        offset = (start_ms - self._audio_start_ms) * SAMPLES_PER_MS
        return self._audio.read(offset, max(offset, (end_ms - self._audio_start_ms) * SAMPLES_PER_MS))

    async def _settle_long_speech(self) -> None:
        """Cut a piece off speech that exceeds Whisper's window, where it is quietest, and keep its transcript."""
        longest = (BACKGROUND_PIECE_MS if self._is_background else PIECE_MS) * SAMPLES_PER_MS
        if len(self._audio) < longest or self._final is not None:
            return
        speech = self._speech()
        if len(speech) < longest:
            return
        search = speech[-PIECE_SEARCH_MS * SAMPLES_PER_MS :]
        blocks = search[: len(search) // 3200 * 3200].reshape(-1, 3200)  # 200 ms
        quietest = int(np.argmin(np.square(blocks).mean(axis=1)))
        cut = len(speech) - len(search) + quietest * 3200 + 1600
        self._drop_partial()
        piece = await self._recognise(speech[:cut], self._chosen_language)
        self._settled.append(piece.text)
        offset = len(self._audio) - (len(speech) - cut)
        # The speech ends at the stream's position, within the post-roll: keep from the cut on.
        self._audio.drop(offset)
        self._audio_start_ms = self._endpointer.position_ms - len(self._audio) // SAMPLES_PER_MS

    def _keep_preroll(self) -> None:
        keep_ms = PREROLL_MS + self._endpointer.options.min_speech_ms + 400
        surplus = len(self._audio) - keep_ms * SAMPLES_PER_MS
        if surplus > MICROPHONE_SAMPLE_RATE_HZ:  # trim once a second, not once a window
            self._audio.drop(surplus)
            self._audio_start_ms += surplus // SAMPLES_PER_MS

    def _drop_partial(self) -> None:
        if self._partial is not None:
            self._partial.cancel()
            self._partial = None

    def _forget(self) -> None:
        self._drop_partial()
        for task in (self._announcing, self._final):
            if task is not None and not task.done():
                task.cancel()
        self._announcing = self._final = None
        self._announced = None
        self._settled = []
        self._endpointer.reset()
        self._audio_start_ms += len(self._audio) // SAMPLES_PER_MS
        self._audio.drop(len(self._audio))
