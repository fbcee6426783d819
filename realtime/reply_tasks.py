"""Owns the tasks that make replies: the speculation, the committed one, those being cancelled. Imports no Django."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any
from uuid import UUID

from inference.interfaces import GenerationOptions, LanguageModel, SynthesisOptions, TextToSpeech
from inference.telemetry.context import bound, make_trace_id
from inference.telemetry.logs import figures
from realtime.call.events import CommitReply, ReplyReport, ReportPlayback, StartReply
from realtime.call.prompt import Scene, choose_reply_language, compose, is_chinese
from realtime.call.settings import CallSettings
from realtime.call.voice import Voice
from realtime.reply import Outlet, Reply

logger = logging.getLogger(__name__)

#: How long a reply waits for the engines to end what was cancelled before it: they stop within one step.
MAX_ENDING_S = 10.0
#: How often, at the end of the process, it is asked whether a sentence has been played.
SENTENCE_POLL_S = 0.05


class ReplyTasks:
    """Starts and stops replies, none of which waits. `start` makes a task that its caller's group owns."""

    def __init__(
        self,
        *,
        llm: LanguageModel,
        tts: TextToSpeech,
        scene: Scene,
        settings: CallSettings,
        outlet: Outlet,
        clock: Callable[[], float],
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._llm = llm
        self._tts = tts
        self._scene = scene
        self._settings = settings
        self._outlet = outlet
        self._clock = clock
        self._start = start
        self._replies: dict[UUID, tuple[Reply, asyncio.Task[None]]] = {}
        #: The reply that is committed, while it is made and played.
        self.committed: Reply | None = None
        #: Cancelled, and not ended yet: the engines are still busy with them.
        self._ending: set[asyncio.Task[None]] = set()

    def start(self, order: StartReply) -> None:
        settings = self._settings
        reply = Reply(
            turn_id=order.turn_id,
            user_turn_id=order.user_turn_id,
            messages=compose(self._scene, order.history, order.text),
            llm=self._llm,
            tts=self._tts,
            generation=GenerationOptions(
                max_tokens=settings.max_reply_tokens,
                temperature=settings.temperature,
                repeat_penalty=settings.repeat_penalty,
            ),
            language=choose_reply_language(order.text) if is_chinese(settings.system_prompt) else None,
            synthesis=SynthesisOptions(quality=order.quality, speed=order.speed),
            voice=order.voice,
            limits=settings.reply,
            outlet=self._outlet,
            clock=self._clock,
        )
        self._replies[reply.turn_id] = reply, self._start(self._run(reply, tuple(self._ending)))

    async def _run(self, reply: Reply, ending: tuple[asyncio.Task[None], ...]) -> None:
        """Make a reply once the engines are free of what was cancelled before it."""
        if ending:
            _, hanging = await asyncio.wait(ending, timeout=MAX_ENDING_S)
            if hanging:
                logger.error("%d cancelled replies have not ended within %g s", len(hanging), MAX_ENDING_S)
        with bound(trace_id=make_trace_id(reply.user_turn_id), turn_id=reply.turn_id):
            try:
                await reply.run()
            finally:
                _log(reply)
        self._replies.pop(reply.turn_id, None)
        if self.committed is reply:
            self.committed = None

    async def finish_sentence(self) -> None:
        """Return when the sentence that is being heard has been played, or its reply is over; at once if none is."""
        reply = self.committed
        if reply is None or not reply.audio:
            return
        began_ms = reply.read_heard_ms()
        while self.committed is reply:
            end_ms = reply.playout.find_sentence_end_ms(began_ms)
            if end_ms is not None and reply.read_heard_ms() >= end_ms:
                return
            await asyncio.sleep(SENTENCE_POLL_S)

    def commit(self, order: CommitReply, *, prefills: Sequence[tuple[float, float]] = ()) -> None:
        """Let a reply be seen and heard. `prefills`: when its prompt was read ahead, begin and end, for its trace."""
        self.committed, _ = self._replies[order.turn_id]
        self.committed.commit(
            asked_at=order.asked_at,
            stt_ms=order.stt_ms,
            endpoint_s=order.endpoint_s,
            prefills=prefills,
        )

    def cancel(self, turn_id: UUID) -> ReplyReport | None:
        """Stop a reply. Return what was heard of it, if it was committed."""
        reply, task = self._replies.pop(turn_id)
        task.cancel()
        reply.stop()
        self.note_ending(task)
        if self.committed is not reply:
            return None
        self.committed = None
        return reply.describe()

    def note_ending(self, task: asyncio.Task[None] | None) -> None:
        """Let the next reply begin after a task that was cancelled has ended."""
        if task is not None and not task.done():
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def report_playback(self, report: ReportPlayback) -> None:
        reply, _ = self._replies[report.turn_id]
        reply.report_playback(report.played_ms, is_finished=report.is_finished)

    def change_voice(self, voice: Voice) -> None:
        for reply, _ in self._replies.values():
            reply.change_voice(voice)


def _log(reply: Reply) -> None:
    """Log a reply that is over. One that nobody was to see or hear (a speculation) is not."""
    if not reply.is_committed:
        return
    report = reply.describe(with_sound=False)
    latency = report.latency
    extra = figures(
        stt_ms=latency.stt,
        ttft_ms=latency.ttft,
        ttfa_ms=latency.ttfa,
        total_ms=latency.total,
        audio_ms=report.audio_ms,
        heard_ms=report.heard_ms,
        was_interrupted=reply.is_stopped,
    )
    logger.info("reply over", extra=extra)
