"""The speculation and the committed reply: starting, committing, recording. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from inference.interfaces import BYTES_PER_SAMPLE, InferenceError, InferenceUnavailable
from realtime.call.events import (
    CancelReply,
    ClauseBegan,
    CommitReply,
    Effect,
    Prefill,
    Record,
    ReplyFailed,
    ReplyReport,
    ReportPlayback,
    SendEvent,
    StartReply,
    StopPrefill,
)
from realtime.call.history import History
from realtime.call.prompt import is_chinese
from realtime.call.settings import CallSettings
from realtime.call.turns import BegunTurn, DroppedTurn, SaidTurn
from realtime.call.voice_selection import VoiceSelection
from realtime.messages import (
    REPLY_SAMPLE_RATE_HZ,
    ErrorCode,
    ErrorMessage,
    Interrupted,
    LlmResponse,
    PlaybackMessage,
    Stage,
    TurnEnd,
)


@dataclass(slots=True)
class _Reply:
    turn_id: UUID
    user_turn_id: UUID
    user_text: str
    has_failed: bool = False
    is_turn_end_sent: bool = False
    #: What was recorded of it last while it is being spoken.
    begun: BegunTurn | None = None


class Replies:
    """
    At most one speculation (a silent reply to a provisional transcript) and one reply that is committed.

    What the user and the avatar say goes into the history here, and to the recorder.
    """

    def __init__(self, *, history: History, voice: VoiceSelection, make_id: Callable[[], UUID]) -> None:
        self._history = history
        self._voice = voice
        self._make_id = make_id
        self._speculation: _Reply | None = None
        self._reply: _Reply | None = None

    def read_ahead(self, text: str = "") -> list[Effect]:
        """Have the prompt read that a reply to `text` would begin with. Nothing while a speculation thinks."""
        return [] if self._speculation else [Prefill(self._history.read_messages(), text)]

    def speculate(self, text: str, *, user_turn_id: UUID, settings: CallSettings) -> list[Effect]:
        if self._speculation is not None and are_same_words(self._speculation.user_text, text):
            return []
        effects = self.drop_speculation()
        self._speculation, started = self._start(text, user_turn_id=user_turn_id, settings=settings)
        return effects + started

    def drop_speculation(self) -> list[Effect]:
        dropped, self._speculation = self._speculation, None
        return [CancelReply(dropped.turn_id)] if dropped else []

    def answer(
        self,
        text: str,
        *,
        user_turn_id: UUID,
        settings: CallSettings,
        asked_at: float,
        stt_ms: int | None,
        endpoint_s: float | None = None,
    ) -> list[Effect]:
        """Answer aloud, with the speculation if it answers the same words of the same turn."""
        reply, self._speculation = self._speculation, None
        effects: list[Effect] = []
        if reply is None or not _answers(reply, text, user_turn_id):
            if reply is not None:
                effects.append(CancelReply(reply.turn_id))
            reply, started = self._start(text, user_turn_id=user_turn_id, settings=settings)
            effects += started
        self._reply = reply
        self._history.append(user_turn_id, "user", text)
        return [*effects, CommitReply(reply.turn_id, asked_at, stt_ms, endpoint_s)]

    def _start(self, text: str, *, user_turn_id: UUID, settings: CallSettings) -> tuple[_Reply, list[Effect]]:
        reply = _Reply(self._make_id(), user_turn_id, text)
        start = StartReply(
            turn_id=reply.turn_id,
            user_turn_id=user_turn_id,
            text=text,
            history=self._history.read_messages(),
            voice=self._voice.current,
            quality=settings.quality,
            speed=settings.speed,
        )
        return reply, [*self._voice.retry_renewal(), StopPrefill(), start]

    def cancel(self) -> list[Effect]:
        """Stop the committed reply; `ReplyStopped` follows."""
        return [CancelReply(self._reply.turn_id)] if self._reply else []

    def report_playback(self, message: PlaybackMessage) -> list[Effect]:
        if self._reply is None or self._reply.turn_id != message.turn_id:
            return []
        return [ReportPlayback(message.turn_id, message.played_ms, message.is_finished)]

    def handle_failed(self, event: ReplyFailed) -> list[Effect]:
        """Report the failure of the committed reply. A speculation fails silently and is made again when wanted."""
        if self._speculation is not None and self._speculation.turn_id == event.turn_id:
            self._speculation.has_failed = True
        if self._reply is None or self._reply.turn_id != event.turn_id:
            return []
        return [SendEvent(make_failure(event.stage, event.error, turn_id=event.turn_id))]

    def handle_clause(self, event: ClauseBegan) -> list[Effect]:
        """Record what can be heard, so that a process that is killed leaves it behind."""
        reply = self._reply
        if reply is None or reply.turn_id != event.turn_id or not event.text:
            return []
        speaker = self._voice.name_speaker(event.spoken_in)
        begun = BegunTurn(event.turn_id, event.text, guess_language(event.text), speaker)
        if begun == reply.begun:
            return []
        reply.begun = begun
        return [Record(begun), *self._voice.retry_renewal()]

    def handle_sent(self, report: ReplyReport) -> list[Effect]:
        if self._reply is None or self._reply.turn_id != report.turn_id:
            return []
        return [self._end_turn(self._reply, report, was_interrupted=False)]

    def _end_turn(self, reply: _Reply, report: ReplyReport, *, was_interrupted: bool) -> SendEvent:
        reply.is_turn_end_sent = True
        return SendEvent(
            TurnEnd(
                turn_id=reply.turn_id,
                user_turn_id=reply.user_turn_id,
                was_interrupted=was_interrupted,
                audio_ms=report.audio_ms,
                latency_ms=report.latency,
                quality=report.quality.value if report.quality else None,
            )
        )

    def handle_stopped(self, report: ReplyReport) -> list[Effect] | None:
        """Announce what was heard of the committed reply, and record it. None: it is not this one."""
        reply = self._reply
        if reply is None or reply.turn_id != report.turn_id:
            return None
        heard = LlmResponse(
            turn_id=reply.turn_id,
            user_turn_id=reply.user_turn_id,
            text=report.heard_text,
            is_final=True,
            was_interrupted=True,
        )
        effects: list[Effect] = [SendEvent(Interrupted(reply.turn_id, report.heard_ms)), SendEvent(heard)]
        if not reply.is_turn_end_sent:
            effects.append(self._end_turn(reply, report, was_interrupted=True))
        return effects + self._record(report, was_interrupted=True)

    def handle_ended(self, report: ReplyReport) -> list[Effect] | None:
        """Record the committed reply, which was played to its end. None: it is not this one."""
        if self._reply is None or self._reply.turn_id != report.turn_id:
            return None
        return self._record(report, was_interrupted=False)

    def end_call(self, report: ReplyReport | None) -> list[Effect]:
        """Record the committed reply: the client is gone, perhaps in mid-reply."""
        if self._reply is None or report is None or self._reply.turn_id != report.turn_id:
            return []
        was_cut = not self._reply.is_turn_end_sent or report.heard_ms < report.audio_ms
        return self._record(report, was_interrupted=was_cut)

    def _record(self, report: ReplyReport, *, was_interrupted: bool) -> list[Effect]:
        reply, self._reply = self._reply, None
        text = report.heard_text if was_interrupted else report.text
        if not text:
            return [Record(DroppedTurn(report.turn_id))] if reply and reply.begun else []
        self._history.append(report.turn_id, "assistant", text)
        heard_bytes = report.sample_rate_hz * report.heard_ms // 1000 * BYTES_PER_SAMPLE
        turn = SaidTurn(
            turn_id=report.turn_id,
            speaker="avatar",
            text=text,
            language=guess_language(text),
            pcm=report.pcm[:heard_bytes] if was_interrupted else report.pcm,
            sample_rate_hz=report.sample_rate_hz or REPLY_SAMPLE_RATE_HZ,
            was_interrupted=was_interrupted,
            voice_profile_id=self._voice.name_speaker(report.spoken_in),
            quality=report.quality,
            latency=_describe_latency(report),
        )
        return [Record(turn)]


def _answers(reply: _Reply, text: str, user_turn_id: UUID) -> bool:
    is_same_turn = reply.user_turn_id == user_turn_id
    return is_same_turn and not reply.has_failed and are_same_words(reply.user_text, text)


def _describe_latency(report: ReplyReport) -> dict[str, int | None]:
    return {name: getattr(report.latency, name) for name in ("stt", "ttft", "ttfa", "total")}


def make_failure(stage: Stage, error: InferenceError, *, turn_id: UUID | None = None) -> ErrorMessage:
    is_away = isinstance(error, InferenceUnavailable) or stage is Stage.STT
    code = ErrorCode.INFERENCE_UNAVAILABLE if is_away else ErrorCode.PROCESSING_ERROR
    return ErrorMessage(code=code, error="", turn_id=turn_id, detail=f"{stage}: {error}")


def guess_language(text: str) -> str:
    return "zh" if is_chinese(text) else "en"


def are_same_words(one: str, other: str) -> bool:
    """
    Say whether two transcripts differ in nothing that a reply depends on: punctuation, case, width, white space.

    Of nothing but punctuation, only the same is the same.
    """
    return one == other or (normalise_words(one) == normalise_words(other) != "")


def normalise_words(text: str) -> str:
    """Return the text in NFKC, case-folded, without white space and punctuation. That of numbers stays: 3.5, 50%."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(
        character
        for place, character in enumerate(folded)
        if character.isalnum() or character == "%" or _is_kept(folded, place)
    )


def _is_kept(text: str, place: int) -> bool:
    character = text[place]
    if character.isspace():
        return False
    if not unicodedata.category(character).startswith("P"):
        return True
    # In a number, or its sign: 3.5, 12:30, -5.
    return text[place + 1 : place + 2].isdigit() and (character == "-" or text[max(0, place - 1) : place].isdigit())
