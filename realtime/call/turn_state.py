"""Whose turn it is: every transition is a row of a table. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class State(Enum):
    LISTENING = "listening"
    USER_SPEAKING = "user_speaking"
    #: From the decision to answer until the reply has been played.
    REPLYING = "replying"


class Cue(Enum):
    """What may change whose turn it is."""

    #: The user's speech has begun, hands-free: speaking is how one interrupts.
    SPEECH_BEGAN = "speech began"
    #: The same while a key is held.
    HELD_SPEECH_BEGAN = "held speech began"
    #: The user may be done: there is a provisional transcript.
    PAUSED = "paused"
    RESUMED = "resumed"
    #: The utterance is over and has a final transcript.
    FINISHED = "finished"
    #: There was no speech in it.
    FINISHED_EMPTY = "finished empty"
    #: It was recognised so late that the user is saying something else by now.
    FINISHED_OVERTAKEN = "finished overtaken"
    #: The utterance is gone: a limit, or recognition failed.
    LOST = "lost"
    TYPED = "typed"
    #: The client says that the utterance is over.
    END_REQUESTED = "end requested"
    INTERRUPT_REQUESTED = "interrupt requested"
    #: The reply has been played to its end, or has failed.
    REPLY_ENDED = "reply ended"


class Action(Enum):
    """What follows from a cue."""

    ANNOUNCE_SPEECH = "announce speech"
    #: Stop the reply because the user speaks.
    BARGE_IN = "barge in"
    #: Start a reply silently: it may be dropped.
    SPECULATE = "speculate"
    DROP_SPECULATION = "drop speculation"
    #: Answer aloud, with the speculation if it answers the same words.
    ANSWER = "answer"
    REPORT_NOTHING_HEARD = "report nothing heard"
    #: Record the transcript, and go on listening.
    LEAVE_UNANSWERED = "leave unanswered"
    #: Drop the speculation, and tell the client that it is the user's turn.
    LISTEN_AGAIN = "listen again"
    #: Discard the utterance, and answer the text.
    ANSWER_TYPED = "answer typed"
    #: Have the transcript made of what was received so far.
    FINISH_UTTERANCE = "finish utterance"
    #: Tell the client that a reply is being made.
    REFUSE = "refuse"
    #: Stop the reply because the client asked for it.
    STOP_REPLY = "stop reply"
    #: Tell the client that it is the user's turn.
    LISTEN = "listen"


_LISTENING, _SPEAKING, _REPLYING = State.LISTENING, State.USER_SPEAKING, State.REPLYING

#: (state, cue) → (next state, action). None: nothing follows. Complete: a test walks every row.
TRANSITIONS: Mapping[tuple[State, Cue], tuple[State, Action | None]] = {
    (_LISTENING, Cue.SPEECH_BEGAN): (_SPEAKING, Action.ANNOUNCE_SPEECH),
    (_LISTENING, Cue.HELD_SPEECH_BEGAN): (_SPEAKING, Action.ANNOUNCE_SPEECH),
    (_LISTENING, Cue.PAUSED): (_LISTENING, Action.SPECULATE),
    (_LISTENING, Cue.RESUMED): (_LISTENING, Action.DROP_SPECULATION),
    # Of an utterance whose beginning was ignored: the key was pressed during a reply.
    (_LISTENING, Cue.FINISHED): (_REPLYING, Action.ANSWER),
    (_LISTENING, Cue.FINISHED_EMPTY): (_LISTENING, Action.REPORT_NOTHING_HEARD),
    (_LISTENING, Cue.FINISHED_OVERTAKEN): (_LISTENING, Action.LEAVE_UNANSWERED),
    (_LISTENING, Cue.LOST): (_LISTENING, Action.LISTEN_AGAIN),
    (_LISTENING, Cue.TYPED): (_REPLYING, Action.ANSWER_TYPED),
    (_LISTENING, Cue.END_REQUESTED): (_LISTENING, Action.FINISH_UTTERANCE),
    (_LISTENING, Cue.INTERRUPT_REQUESTED): (_LISTENING, None),
    (_LISTENING, Cue.REPLY_ENDED): (_LISTENING, None),
    (_SPEAKING, Cue.SPEECH_BEGAN): (_SPEAKING, Action.ANNOUNCE_SPEECH),
    (_SPEAKING, Cue.HELD_SPEECH_BEGAN): (_SPEAKING, Action.ANNOUNCE_SPEECH),
    (_SPEAKING, Cue.PAUSED): (_SPEAKING, Action.SPECULATE),
    (_SPEAKING, Cue.RESUMED): (_SPEAKING, Action.DROP_SPECULATION),
    (_SPEAKING, Cue.FINISHED): (_REPLYING, Action.ANSWER),
    (_SPEAKING, Cue.FINISHED_EMPTY): (_LISTENING, Action.REPORT_NOTHING_HEARD),
    (_SPEAKING, Cue.FINISHED_OVERTAKEN): (_LISTENING, Action.LEAVE_UNANSWERED),
    (_SPEAKING, Cue.LOST): (_LISTENING, Action.LISTEN_AGAIN),
    (_SPEAKING, Cue.TYPED): (_REPLYING, Action.ANSWER_TYPED),
    (_SPEAKING, Cue.END_REQUESTED): (_SPEAKING, Action.FINISH_UTTERANCE),
    (_SPEAKING, Cue.INTERRUPT_REQUESTED): (_SPEAKING, None),
    (_SPEAKING, Cue.REPLY_ENDED): (_SPEAKING, None),
    (_REPLYING, Cue.SPEECH_BEGAN): (_SPEAKING, Action.BARGE_IN),
    # Transcripts during a reply are of an utterance that was answered or discarded.
    (_REPLYING, Cue.HELD_SPEECH_BEGAN): (_REPLYING, None),
    (_REPLYING, Cue.PAUSED): (_REPLYING, None),
    (_REPLYING, Cue.RESUMED): (_REPLYING, None),
    (_REPLYING, Cue.FINISHED): (_REPLYING, None),
    (_REPLYING, Cue.FINISHED_EMPTY): (_REPLYING, None),
    (_REPLYING, Cue.FINISHED_OVERTAKEN): (_REPLYING, None),
    (_REPLYING, Cue.LOST): (_REPLYING, None),
    (_REPLYING, Cue.TYPED): (_REPLYING, Action.REFUSE),
    (_REPLYING, Cue.END_REQUESTED): (_REPLYING, Action.REFUSE),
    (_REPLYING, Cue.INTERRUPT_REQUESTED): (_LISTENING, Action.STOP_REPLY),
    (_REPLYING, Cue.REPLY_ENDED): (_LISTENING, Action.LISTEN),
}


class TurnState:
    """Keeps whose turn it is."""

    def __init__(self) -> None:
        self.state = State.LISTENING

    @property
    def is_replying(self) -> bool:
        return self.state is State.REPLYING

    @property
    def is_user_speaking(self) -> bool:
        return self.state is State.USER_SPEAKING

    def advance(self, cue: Cue) -> Action | None:
        self.state, action = TRANSITIONS[self.state, cue]
        return action
