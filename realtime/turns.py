"""
Whose turn it is. Pure: no I/O, no clock; knows no Django, no Channels and no gRPC.

    LISTENING → USER_SPEAKING → THINKING → SPEAKING → LISTENING

`TurnMachine.take` gets one event and answers with the one action that follows from it, or None.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    LISTENING = "listening"
    USER_SPEAKING = "user_speaking"
    #: A reply is being made; nothing of it can be heard yet.
    THINKING = "thinking"
    SPEAKING = "speaking"


# --- events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UserStarted:
    """The user's speech has begun. `may_interrupt`: hands-free, where speaking is how one interrupts."""

    may_interrupt: bool


@dataclass(frozen=True, slots=True)
class UserPaused:
    """The user may be done; this is what was understood so far."""

    text: str


@dataclass(frozen=True, slots=True)
class UserResumed:
    """The user went on after all."""


@dataclass(frozen=True, slots=True)
class UserFinished:
    """
    The utterance is over. Empty when there was no speech in it.

    `is_overtaken`: it was understood so late that the user is saying something else by now.
    """

    text: str
    is_overtaken: bool = False


@dataclass(frozen=True, slots=True)
class UserTyped:
    text: str


@dataclass(frozen=True, slots=True)
class EndRequested:
    """The client says that the utterance is over."""


@dataclass(frozen=True, slots=True)
class InterruptRequested:
    """The client wants the reply to stop."""


@dataclass(frozen=True, slots=True)
class UtteranceLost:
    """What the user was saying is gone: a limit, or hearing failed."""


@dataclass(frozen=True, slots=True)
class ReplyAudible:
    """The first audio of the reply has left."""


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    """The reply has been played to its end, or has failed."""


Speech = UserStarted | UserPaused | UserResumed | UserFinished | UtteranceLost
Request = UserTyped | EndRequested | InterruptRequested
Event = Speech | Request | ReplyAudible | ReplyEnded


# --- actions ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AnnounceSpeech:
    """Tell the client that the user is being heard."""


@dataclass(frozen=True, slots=True)
class Speculate:
    """Start a reply to this text, silently: it may be taken back."""

    text: str


@dataclass(frozen=True, slots=True)
class DropSpeculation:
    """Forget the silent reply."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer this text aloud, with the silent reply if it answers the same text."""

    text: str


@dataclass(frozen=True, slots=True)
class LeaveUnanswered:
    """Keep this text, and go on listening."""

    text: str


@dataclass(frozen=True, slots=True)
class AnswerTyped:
    """Forget what is being heard, and answer this text."""

    text: str


@dataclass(frozen=True, slots=True)
class ReportNothingHeard:
    """Tell the client that there was no speech."""


@dataclass(frozen=True, slots=True)
class FinishUtterance:
    """Have the transcript made of what was heard so far."""


@dataclass(frozen=True, slots=True)
class BargeIn:
    """Stop the reply because the user speaks."""


@dataclass(frozen=True, slots=True)
class StopReply:
    """Stop the reply because the client asked for it."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell the client that a reply is being made."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Tell the client that it is the user's turn."""


Action = (
    AnnounceSpeech
    | Speculate
    | DropSpeculation
    | Answer
    | LeaveUnanswered
    | AnswerTyped
    | ReportNothingHeard
    | FinishUtterance
    | BargeIn
    | StopReply
    | Refuse
    | Listen
)


class TurnMachine:
    """Keeps whose turn it is. `is_speculating` says whether a silent reply has been started."""

    def __init__(self) -> None:
        self.state = State.LISTENING
        self.is_speculating = False

    @property
    def is_replying(self) -> bool:
        return self.state in (State.THINKING, State.SPEAKING)

    def take(self, event: Event) -> Action | None:
        match event:
            case UserStarted() | UserPaused() | UserResumed() | UserFinished() | UtteranceLost():
                return self._take_speech(event)
            case UserTyped() | EndRequested() | InterruptRequested():
                return self._take_request(event)
            case ReplyAudible():
                if self.state is State.THINKING:
                    self.state = State.SPEAKING
                return None
            case ReplyEnded():
                if not self.is_replying:
                    return None
                self.state = State.LISTENING
                return Listen()

    def _take_speech(self, event: Speech) -> Action | None:
        match event:
            case UserStarted(may_interrupt=False) if self.is_replying:
                return None
            case UserStarted():
                action: Action = BargeIn() if self.is_replying else AnnounceSpeech()
                self.state = State.USER_SPEAKING
                return action
            case _ if self.is_replying:
                # Of an utterance that was answered or discarded meanwhile.
                return None
            case UserPaused(text=""):
                return None
            case UserPaused(text=text):
                self.is_speculating = True
                return Speculate(text)
            case UserResumed():
                return self._drop_speculation()
            case UserFinished(text=""):
                self.state = State.LISTENING
                self.is_speculating = False
                return ReportNothingHeard()
            case UserFinished(text=text, is_overtaken=True):
                self.state = State.LISTENING
                self.is_speculating = False
                return LeaveUnanswered(text)
            case UserFinished(text=text):
                self.state = State.THINKING
                self.is_speculating = False
                return Answer(text)
            case UtteranceLost():
                self.state = State.LISTENING
                return self._drop_speculation() or Listen()

    def _take_request(self, event: Request) -> Action | None:
        match event:
            case UserTyped() | EndRequested() if self.is_replying:
                return Refuse()
            case UserTyped(text=text):
                self.state = State.THINKING
                self.is_speculating = False
                return AnswerTyped(text)
            case EndRequested():
                return FinishUtterance()
            case InterruptRequested() if self.is_replying:
                self.state = State.LISTENING
                return StopReply()
            case InterruptRequested():
                return None

    def _drop_speculation(self) -> DropSpeculation | None:
        if not self.is_speculating:
            return None
        self.is_speculating = False
        return DropSpeculation()
