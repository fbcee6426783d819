"""
Inputs and effects of `CallMachine`: frozen values. Pure.

The client's messages are inputs as they are. Every effect is performed at once; the result of one that starts a task
comes back as an input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from inference.interfaces import (
    DiscardUtterance,
    EndOfUtterance,
    InferenceError,
    Message,
    PartialTranscript,
    ProvisionalTranscript,
    Quality,
    SpeechResumed,
    TranscriptionInput,
    TranscriptionOptions,
)
from realtime.call.turns import PastTurn, RecordedTurn
from realtime.call.voice import Voice
from realtime.messages import AudioFormat, ClientMessage, LatencyMs, ServerMessage, Stage

# --- effects ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendEvent:
    """Send the client a message, after those sent before."""

    message: ServerMessage


@dataclass(frozen=True, slots=True)
class Record:
    turn: RecordedTurn


@dataclass(frozen=True, slots=True)
class FeedAudio:
    """Pass the audio that the input came with to the recogniser."""


@dataclass(frozen=True, slots=True)
class FeedRecogniser:
    """
    Tell the recogniser something after the audio received so far.

    `EndOfUtterance` makes a final transcript due. `DiscardUtterance` drops the audio that waits as well.
    """

    item: TranscriptionOptions | EndOfUtterance | DiscardUtterance


@dataclass(frozen=True, slots=True)
class Decode:
    """
    Decode an upload, and reserve its place after the audio received so far. Answered by `UploadDecoded`.

    The recogniser gets nothing of what follows until the place is filled.
    """

    number: int
    data: bytes
    format: AudioFormat
    max_ms: int
    #: When the client said that the upload was complete.
    ended_at: float


@dataclass(frozen=True, slots=True)
class FillPlace:
    """Put these items in the place of an upload, and stop decoding it. None: it has come to nothing."""

    number: int
    items: Sequence[TranscriptionInput] = ()


@dataclass(frozen=True, slots=True)
class LookUpVoice:
    """Find the voice of a profile. Answered by `VoiceFound`; replaces a lookup with the same `is_choice`."""

    number: int
    voice_profile_id: UUID | None
    #: The client has chosen it; otherwise it is in use, and may have changed.
    is_choice: bool


@dataclass(frozen=True, slots=True)
class HoldSpeech:
    """Let no reply begin to be spoken (one that has begun goes on), or let it."""

    is_held: bool


@dataclass(frozen=True, slots=True)
class ChangeVoice:
    """Let every reply speak in this voice from its next clause on."""

    voice: Voice


@dataclass(frozen=True, slots=True)
class LookUpPast:
    """Find a turn that is to be corrected and what came before it. Answered by `PastFound`."""

    turn_id: UUID
    text: str
    received_at: float


@dataclass(frozen=True, slots=True)
class StartReply:
    """Begin a reply silently: it thinks and prepares its first clause."""

    turn_id: UUID
    user_turn_id: UUID
    text: str
    history: tuple[Message, ...]
    voice: Voice
    quality: Quality
    speed: float


@dataclass(frozen=True, slots=True)
class CommitReply:
    """Let a reply be seen and heard. Latencies count from `asked_at`."""

    turn_id: UUID
    asked_at: float
    stt_ms: int | None
    #: See `TranscriptReceived`. None: the text was typed.
    endpoint_s: float | None = None


@dataclass(frozen=True, slots=True)
class CancelReply:
    """
    Stop a reply: nothing of it is sent afterwards.

    A committed one is answered by `ReplyStopped` at once, before the next effect is performed.
    """

    turn_id: UUID


@dataclass(frozen=True, slots=True)
class ReportPlayback:
    """Tell a reply how much of it the client has played."""

    turn_id: UUID
    played_ms: int
    is_finished: bool


@dataclass(frozen=True, slots=True)
class Prefill:
    """Have the language model read ahead what it will be asked, after what it reads now; only the last one waits."""

    history: tuple[Message, ...]
    text: str = ""


@dataclass(frozen=True, slots=True)
class StopPrefill:
    pass


Effect = (
    SendEvent
    | Record
    | FeedAudio
    | FeedRecogniser
    | Decode
    | FillPlace
    | LookUpVoice
    | HoldSpeech
    | ChangeVoice
    | LookUpPast
    | StartReply
    | CommitReply
    | CancelReply
    | ReportPlayback
    | Prefill
    | StopPrefill
)

# --- inputs -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallStarted:
    pass


@dataclass(frozen=True, slots=True)
class FrameReceived:
    """So many bytes of microphone audio."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    """The user's speech has begun; `received_ms` of audio were received since."""

    received_ms: int


@dataclass(frozen=True, slots=True)
class TranscriptReceived:
    """A final transcript, with its sound. Empty when there was no speech."""

    text: str
    language: str
    #: When the end of the speech had been received.
    ended_at: float
    #: The speech with a little before and after it, the speech alone, and what was received after its transcript.
    pcm: bytes = b""
    speech: bytes = b""
    newer: bytes = b""
    #: How long after the end of the speech the utterance was found to be over. None: it was not measured.
    endpoint_s: float | None = None


@dataclass(frozen=True, slots=True)
class RecognitionFailed:
    """The recogniser's stream has ended, and all that it had received is lost. `is_news`: the client has to be told."""

    error: InferenceError
    is_news: bool


@dataclass(frozen=True, slots=True)
class UploadDecoded:
    """An upload as PCM, or why there is none."""

    decode: Decode
    outcome: bytes | Exception


@dataclass(frozen=True, slots=True)
class VoiceNotified:
    """A voice profile was changed, disabled or deleted."""

    voice_profile_id: UUID


@dataclass(frozen=True, slots=True)
class VoiceFound:
    """The voice that was looked up (None: there is none), or why it cannot be read now."""

    lookup: LookUpVoice
    outcome: Voice | Exception | None


@dataclass(frozen=True, slots=True)
class PastFound:
    """What came before a turn, and itself (None: no such turn), or why it cannot be read now."""

    lookup: LookUpPast
    outcome: Sequence[PastTurn] | Exception | None


@dataclass(frozen=True, slots=True)
class ReplyReport:
    """How far a reply has come."""

    turn_id: UUID
    text: str
    #: What the user has got of it: what was heard, or what was shown when it could not be spoken.
    heard_text: str
    heard_ms: int
    audio_ms: int
    #: None: there is no sound.
    quality: Quality | None
    latency: LatencyMs
    #: The profiles whose voices it was spoken in, clause by clause.
    spoken_in: tuple[UUID | None, ...] = ()
    pcm: bytes = b""
    sample_rate_hz: int = 0


@dataclass(frozen=True, slots=True)
class ClauseBegan:
    """The first sound of a clause has been sent. `text` is that of all clauses whose sound has begun."""

    turn_id: UUID
    text: str
    spoken_in: tuple[UUID | None, ...]


@dataclass(frozen=True, slots=True)
class ReplyFailed:
    """An engine has failed. The reply goes on with what it has."""

    turn_id: UUID
    stage: Stage
    error: InferenceError


@dataclass(frozen=True, slots=True)
class ReplySent:
    """Everything of a reply has been sent."""

    report: ReplyReport


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    """A reply has been played to its end."""

    report: ReplyReport


@dataclass(frozen=True, slots=True)
class ReplyStopped:
    """A reply was cancelled."""

    report: ReplyReport


@dataclass(frozen=True, slots=True)
class CallEnded:
    """The client is gone. Only `Record` effects follow."""

    report: ReplyReport | None


#: What the recogniser reports.
RecogniserEvent = (
    SpeechBegan | PartialTranscript | ProvisionalTranscript | SpeechResumed | TranscriptReceived | RecognitionFailed
)
#: What a reply reports by itself.
ReplyEvent = ClauseBegan | ReplyFailed | ReplySent | ReplyEnded
Input = (
    CallStarted
    | FrameReceived
    | ClientMessage
    | RecogniserEvent
    | UploadDecoded
    | VoiceNotified
    | VoiceFound
    | PastFound
    | ReplyEvent
    | ReplyStopped
    | CallEnded
)
