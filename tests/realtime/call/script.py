"""A call without an event loop: a machine, a clock that is set by hand, and what the runner would answer at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar
from uuid import UUID

from inference.interfaces import Message, ProvisionalTranscript, Quality
from realtime import messages
from realtime.call import events
from realtime.call.events import Effect, Input, ReplyReport
from realtime.call.machine import CallMachine
from realtime.call.settings import CallSettings
from realtime.call.turns import PastTurn, RecordedTurn

Kind = TypeVar("Kind")
HOLDING = messages.ConfigureMessage(mode=messages.Mode.HOLD_TO_TALK)
FRAME = events.FrameReceived(640)


class Script:
    """
    Feeds a machine and keeps every effect.

    A committed reply that is cancelled is reported as stopped, after `heard_text` of it was heard.
    """

    def __init__(self, history: Sequence[PastTurn] = (), **settings: Any) -> None:
        self.now = 1000.0
        self.effects: list[Effect] = []
        self.heard_text = "好的"
        self._ids = 0
        self._committed: UUID | None = None
        self.machine = CallMachine(settings=CallSettings(**settings), history=history, make_id=self._make_id)

    def _make_id(self) -> UUID:
        self._ids += 1
        return UUID(int=self._ids)

    def feed(self, *inputs: Input) -> list[Effect]:
        """Return the effects of these inputs, in the order in which they are performed."""
        done = [effect for event in inputs for effect in self._handle(event)]
        self.effects += done
        return done

    def _handle(self, event: Input) -> Iterator[Effect]:
        for effect in self.machine.receive(event, self.now):
            yield effect
            if isinstance(effect, events.CommitReply):
                self._committed = effect.turn_id
            elif isinstance(effect, events.CancelReply) and effect.turn_id == self._committed:
                yield from self._handle(events.ReplyStopped(self.report(text="好的，沒問題。", heard_ms=400)))

    def report(self, *, text: str = "好的。", heard_ms: int = 1000, **fields: Any) -> ReplyReport:
        """What the reply that was committed last says of itself, or one that was stopped long ago."""
        known: dict[str, Any] = {
            "turn_id": self._committed or UUID(int=0),
            "text": text,
            "heard_text": self.heard_text,
            "heard_ms": heard_ms,
            "audio_ms": 1000,
            "quality": Quality.FAST,
            "latency": messages.LatencyMs(),
            "spoken_in": (None,),
            "pcm": bytes(48_000),
            "sample_rate_hz": 24_000,
        }
        return ReplyReport(**known | fields)

    def say(self, text: str, *, provisional: str | None = None, **fields: Any) -> list[Effect]:
        """Speak hands-free, from the first sound to the final transcript."""
        effects = self.feed(events.SpeechBegan(300))
        if provisional is not None:
            effects += self.feed(ProvisionalTranscript(provisional, "zh"))
        return effects + self.feed(self.transcribe(text, **fields))

    def transcribe(self, text: str, **fields: Any) -> events.TranscriptReceived:
        return events.TranscriptReceived(text, "zh", **{"ended_at": self.now - 0.7} | fields)

    def end_reply(self) -> list[Effect]:
        return self.feed(events.ReplySent(self.report()), events.ReplyEnded(self.report()))

    def list_of(self, kind: type[Kind]) -> list[Kind]:
        return list_of(kind, self.effects)

    def list_sent(self, kind: type[Kind]) -> list[Kind]:
        return [each.message for each in self.list_of(events.SendEvent) if isinstance(each.message, kind)]

    @property
    def recorded(self) -> list[RecordedTurn]:
        return [each.turn for each in self.list_of(events.Record)]

    def read_prompt(self) -> list[Message]:
        """Return what the reply begun last is given: the history and the user's words."""
        start = self.list_of(events.StartReply)[-1]
        return [*start.history, Message("user", start.text)]


def list_of(kind: type[Kind], effects: Sequence[Effect]) -> list[Kind]:
    return [effect for effect in effects if isinstance(effect, kind)]


def describe(effects: Sequence[Effect]) -> list[str]:
    """Name each effect; a message by its own name, whose turn it is by a word, an error by its code."""
    return [_name(effect) for effect in effects]


def _name(effect: Effect) -> str:
    match effect:
        case events.SendEvent(message=messages.Status(stage=messages.Stage.LISTENING, is_speaking=is_speaking)):
            return "say: speaking" if is_speaking else "say: listening"
        case events.SendEvent(message=messages.ErrorMessage(code=code)):
            return f"say: {code}"
        case events.SendEvent(message=message):
            return f"say: {type(message).__name__}"
        case events.Record(turn=turn):
            return f"record: {type(turn).__name__}"
        case events.FeedRecogniser(item=item):
            return f"feed: {type(item).__name__}"
        case _:
            return type(effect).__name__
