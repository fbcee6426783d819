"""
Makes one reply: tokens → text on the screen, and → clauses → audio. Imports no Django, Channels or gRPC.

A reply may be started before it is wanted. Until `commit` it thinks and prepares its first clause, and nothing of it
leaves this object.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from avatar_site.lib import metrics
from inference.interfaces import (
    BYTES_PER_SAMPLE,
    GenerationOptions,
    InferenceError,
    LanguageModel,
    Message,
    Quality,
    SynthesisOptions,
    TextDelta,
    TextToSpeech,
)
from realtime.call.events import ClauseBegan, ReplyEnded, ReplyEvent, ReplyFailed, ReplyReport, ReplySent
from realtime.call.prompt import Language
from realtime.call.settings import ReplyLimits
from realtime.call.voice import Voice
from realtime.clauses import Clause, ClauseCutter
from realtime.messages import LatencyMs, LlmResponse, ServerMessage, Stage, Status, TtsReady
from realtime.playout import Playout
from realtime.reply_language import generate_in
from realtime.streams import within
from realtime.turn_trace import TurnTrace

logger = logging.getLogger(__name__)

#: The most audio one binary message holds.
PIECE_MS = 200
#: A shorter silence is not told from the pause between two clauses.
MIN_GAP_S = 0.05


@dataclass(frozen=True, slots=True)
class Outlet:
    """Where a reply goes."""

    #: Sends a message or a piece of audio of a reply, after those sent before; waits when the client reads slowly.
    send: Callable[[Reply, ServerMessage | bytes], Awaitable[None]]
    #: Takes what happens to the reply, at once.
    report: Callable[[ReplyEvent], None]
    #: While it is not set, the first clause is not spoken.
    may_speak: asyncio.Event
    make_audio_url: Callable[[UUID], str | None]


class Reply:
    """
    One reply. Its owner runs `run` as a task, cancels the task to stop it, and then asks what was heard.

    At most one clause is synthesised beyond the one that follows the clause being played.
    """

    def __init__(
        self,
        *,
        turn_id: UUID,
        user_turn_id: UUID,
        messages: Sequence[Message],
        llm: LanguageModel,
        tts: TextToSpeech,
        generation: GenerationOptions,
        synthesis: SynthesisOptions,
        voice: Voice,
        limits: ReplyLimits,
        outlet: Outlet,
        clock: Callable[[], float],
        language: Language | None = None,
    ) -> None:
        self.turn_id = turn_id
        self.user_turn_id = user_turn_id
        self.voice = voice
        #: Whose voices its clauses were spoken in.
        self.spoken_in: list[UUID | None] = []
        self.text = ""
        self.is_stopped = False
        self.sample_rate_hz = 0
        #: What it is spoken with, known once there is sound: fast, once a part of it is.
        self.quality = synthesis.quality
        self.playout = Playout(max_ahead_ms=limits.max_ahead_ms)
        self.audio = bytearray()
        self._messages = messages
        self._llm = llm
        self._tts = tts
        self._generation = generation
        self._synthesis = synthesis
        self._limits = limits
        self._outlet = outlet
        self._clock = clock
        self._language = language
        self._trace = TurnTrace(user_turn_id)
        self._sounds_since: float | None = None
        self._committed = asyncio.Event()
        self._is_thought = False
        self._is_speechless = False
        self._is_clause_silent = True
        self._text_changed = asyncio.Event()
        self._played = asyncio.Event()
        # A reply is capped by its tokens, so its clauses need no bound; its audio is bounded by `_ahead`.
        self._clauses: deque[Clause] = deque()
        self._clauses_changed = asyncio.Event()
        self._sound: asyncio.Queue[Clause | bytes | None] = asyncio.Queue()
        self._ahead = asyncio.Semaphore(2)
        self._asked_at = 0.0
        self._stt_ms: int | None = None
        self._ttft_ms: int | None = None
        self._ttfa_ms: int | None = None
        self._total_ms: int | None = None

    # --- what its owner does with it ---

    def commit(
        self,
        *,
        asked_at: float,
        stt_ms: int | None,
        endpoint_s: float | None = None,
        prefills: Sequence[tuple[float, float]] = (),
    ) -> None:
        """Let the reply be seen and heard. Latencies count from `asked_at`; the others are for its trace."""
        self._trace.commit(asked_at, stt_ms=stt_ms, endpoint_s=endpoint_s, prefills=prefills)
        self._asked_at = asked_at
        self._stt_ms = stt_ms
        self._committed.set()

    @property
    def is_committed(self) -> bool:
        return self._committed.is_set()

    def change_voice(self, voice: Voice) -> None:
        """Speak in another voice from the next clause on."""
        self.voice = voice

    def stop(self) -> None:
        """Let nothing more of it out. Cancelling `run` reaches those who send some turns of the event loop later."""
        self.is_stopped = True

    def report_playback(self, played_ms: int, *, is_finished: bool) -> None:
        self.playout.report(played_ms, self._clock(), is_finished=is_finished)
        self._played.set()

    def read_heard_ms(self) -> int:
        return round(self.playout.estimate_played_ms(self._clock()))

    def read_heard_text(self, heard_ms: int) -> str:
        """Return what the user has got of the reply: what was heard, or what was shown when it could not be spoken."""
        return self.text.strip() if self._is_speechless else self.playout.read_heard(heard_ms)

    def describe(self, *, with_sound: bool = True) -> ReplyReport:
        """Return how far it has come, with all that was sent of its sound or without."""
        heard_ms = self.read_heard_ms()
        return ReplyReport(
            turn_id=self.turn_id,
            text=self.text.strip(),
            heard_text=self.read_heard_text(heard_ms),
            heard_ms=heard_ms,
            audio_ms=round(self.playout.sent_ms),
            quality=self.quality if self.audio else None,
            latency=LatencyMs(stt=self._stt_ms, ttft=self._ttft_ms, ttfa=self._ttfa_ms, total=self._total_ms),
            spoken_in=tuple(self.spoken_in),
            pcm=bytes(self.audio) if with_sound else b"",
            sample_rate_hz=self.sample_rate_hz,
        )

    async def run(self) -> None:
        """Make the reply and return when it has been played. Failures of engines are reported, not raised."""
        is_complete = False
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._think())
                group.create_task(self._speak())
                group.create_task(self._show())
                group.create_task(self._play())
            self._outlet.report(ReplySent(self.describe(with_sound=False)))
            await self._wait_for_playout(self.playout.compute_rest_s)
            self._outlet.report(ReplyEnded(self.describe()))
            is_complete = True
        finally:
            now = self._clock()
            if self._sounds_since is not None:
                self._trace.add("playout", self._sounds_since, now, heard_ms=self.read_heard_ms())
            self._trace.end(now, was_interrupted=not is_complete)

    # --- thinking ---

    async def _think(self) -> None:
        cutter = ClauseCutter()
        began_s = self._clock()
        text_since: float | None = None
        try:
            events = generate_in(self._language, self._llm, self._messages, self._generation)
            limits = self._limits
            async with contextlib.aclosing(
                within(events, first_s=limits.first_token_s, next_s=limits.next_token_s, what="a token")
            ) as timely:
                async for event in timely:
                    if isinstance(event, TextDelta):
                        text_since = text_since or self._clock()
                        text = event.text if self.text else event.text.lstrip()
                        self.text += text
                        self._text_changed.set()
                        self._add_clauses(cutter.feed(text))
        except InferenceError as error:
            self._report_failure(Stage.LLM, error)
        finally:
            self._trace.add("llm", began_s, self._clock())
        self._is_thought = True
        self._text_changed.set()
        self._add_clauses(cutter.flush())
        if text_since is not None:
            self._trace.add("clauses", text_since, self._clock())

    def _add_clauses(self, clauses: list[Clause]) -> None:
        self._clauses.extend(clauses)
        self._clauses_changed.set()

    def _report_failure(self, stage: Stage, error: InferenceError) -> None:
        logger.warning("%s failed: %s", stage, error)
        self._outlet.report(ReplyFailed(self.turn_id, stage, error))

    # --- showing ---

    async def _show(self) -> None:
        await self._committed.wait()
        await self._send(Status(stage=Stage.LLM, turn_id=self.turn_id))
        shown = 0
        while not (self._is_thought and shown == len(self.text)):
            await self._text_changed.wait()
            self._text_changed.clear()
            if shown < len(self.text):
                delta, shown = self.text[shown:], len(self.text)
                if self._ttft_ms is None:
                    self._ttft_ms = self._measure()
                await self._send(self._make_response(delta, is_final=False))
        await self._send(self._make_response(self.text.strip(), is_final=True))

    async def _send(self, message: ServerMessage | bytes) -> None:
        if not self.is_stopped:
            await self._outlet.send(self, message)

    def _make_response(self, text: str, *, is_final: bool) -> LlmResponse:
        return LlmResponse(turn_id=self.turn_id, user_turn_id=self.user_turn_id, text=text, is_final=is_final)

    def _measure(self) -> int:
        return round((self._clock() - self._asked_at) * 1000)

    # --- speaking ---

    async def _speak(self) -> None:
        is_first = True
        try:
            while (clause := await self._take_clause()) is not None:
                await self._ahead.acquire()
                self._sound.put_nowait(clause)
                if not clause.spoken:
                    continue
                if not is_first:
                    # Of a reply that may be taken back, one clause is enough to have ready.
                    await self._committed.wait()
                else:
                    await self._outlet.may_speak.wait()
                is_last = self._is_thought and not self._clauses
                voice = self.voice
                self.spoken_in.append(voice.profile_id)
                options = replace(
                    self._synthesis,
                    voice=voice.engine_voice,
                    style=voice.style,
                    reference=voice.reference,
                    is_first=is_first,
                    is_last=is_last,
                )
                await self._synthesise(clause, options)
                is_first = False
        except InferenceError as error:
            self._is_speechless = True
            self._sound.put_nowait(None)
            self._report_failure(Stage.TTS, error)
        else:
            self._sound.put_nowait(None)

    async def _take_clause(self) -> Clause | None:
        while not self._clauses:
            if self._is_thought:
                return None
            self._clauses_changed.clear()
            await self._clauses_changed.wait()
        return self._clauses.popleft()

    async def _synthesise(self, clause: Clause, options: SynthesisOptions) -> None:
        began_s = self._clock()
        try:
            await self._read_sound(clause, options)
        finally:
            self._trace.add("tts", began_s, self._clock(), is_first=options.is_first)

    async def _read_sound(self, clause: Clause, options: SynthesisOptions) -> None:
        chunks = self._tts.synthesise(clause.spoken, options)
        limits = self._limits
        async with contextlib.aclosing(
            within(chunks, first_s=limits.first_audio_s, next_s=limits.next_audio_s, what="audio")
        ) as timely:
            async for chunk in timely:
                if self.sample_rate_hz not in (0, chunk.sample_rate_hz):
                    raise InferenceError(f"sample rate {chunk.sample_rate_hz} Hz after {self.sample_rate_hz} Hz")
                if not self.sample_rate_hz or chunk.quality is Quality.FAST:
                    self.quality = chunk.quality
                self.sample_rate_hz = chunk.sample_rate_hz
                if chunk.pcm:
                    self._sound.put_nowait(chunk.pcm)

    # --- playing ---

    async def _play(self) -> None:
        await self._committed.wait()
        is_inside_clause = False
        while (item := await self._sound.get()) is not None:
            if isinstance(item, Clause):
                if is_inside_clause:
                    self.playout.end_clause()
                self.playout.start_clause(item)
                self._is_clause_silent = True
                is_inside_clause = True
                self._ahead.release()
                continue
            size = self.sample_rate_hz * PIECE_MS // 1000 * BYTES_PER_SAMPLE
            for start in range(0, len(item), size):
                await self._send_piece(item[start : start + size])
        if is_inside_clause and not self._is_speechless:
            self.playout.end_clause()
        if self.audio:
            self._total_ms = self._measure()

    async def _send_piece(self, pcm: bytes) -> None:
        length_ms = len(pcm) * 1000 / (self.sample_rate_hz * BYTES_PER_SAMPLE)
        await self._wait_for_playout(lambda now: self.playout.compute_delay_s(length_ms, now))
        if self.is_stopped:
            return
        if not self.audio:
            await self._send(Status(stage=Stage.TTS, turn_id=self.turn_id))
            await self._send(
                TtsReady(
                    turn_id=self.turn_id,
                    user_turn_id=self.user_turn_id,
                    audio_url=self._outlet.make_audio_url(self.turn_id),
                    sample_rate=self.sample_rate_hz,
                    quality=self.quality.value,
                )
            )
        if self._is_clause_silent:
            self._is_clause_silent = False
            begun = self.playout.read_heard(math.inf)
            self._outlet.report(ClauseBegan(self.turn_id, begun, tuple(self.spoken_in)))
        if (gap_s := self.playout.compute_gap_s(self._clock())) >= MIN_GAP_S:
            metrics.observe_gap(gap_s)
        await self._send(pcm)
        self.audio += pcm
        self.playout.add(length_ms, self._clock())
        if self._ttfa_ms is None:
            self._ttfa_ms = self._measure()
            self._sounds_since = self._clock()

    async def _wait_for_playout(self, compute_delay_s: Callable[[float], float]) -> None:
        """Wait until `compute_delay_s(now)` is 0. A client that reports no progress is not waited for without end."""
        now = self._clock()
        give_up_at = now + compute_delay_s(now) + self._limits.stall_s
        while (delay_s := compute_delay_s(self._clock())) > 0:
            if self._clock() > give_up_at:
                self.playout.report(self.playout.sent_ms, self._clock())
                return
            self._played.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._played.wait()
