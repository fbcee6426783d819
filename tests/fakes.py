"""The scripted engines, sounds they understand, and a call to put them in."""

from __future__ import annotations

import array
import asyncio
import itertools
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from uuid import UUID, uuid4

from inference.engines.fake import FakeLanguageModel, FakeSpeakerEncoder, FakeSpeechToText, FakeTextToSpeech
from inference.interfaces import InferenceStatus, InferenceUnavailable, Message, Role, RoleState, RoleStatus
from inference.telemetry.metrics import EngineMetrics
from realtime import messages
from realtime.call.settings import CallSettings
from realtime.call.turns import BegunTurn, CorrectedTurn, DroppedTurn, PastTurn, SaidTurn
from realtime.call.voice import Voice, VoiceUnreadable
from realtime.messages import AudioFormat, ServerMessage
from realtime.runner import CallRunner

__all__ = ["FakeLanguageModel", "FakeSpeechToText", "FakeTextToSpeech"]

PATIENCE_S = 5.0
Message_ = TypeVar("Message_")


def make_tone(ms: int, *, sample_rate_hz: int = 16_000) -> bytes:
    """Sound that the scripted recogniser takes for speech."""
    count = sample_rate_hz * ms // 1000
    return array.array("h", (int(8000 * math.sin(0.2 * n)) for n in range(count))).tobytes()


def make_silence(ms: int, *, sample_rate_hz: int = 16_000) -> bytes:
    return bytes(sample_rate_hz * ms // 1000 * 2)


SPEECH = make_tone(600)
PAUSE = make_silence(700)
UTTERANCE = SPEECH + PAUSE


def cut_frames(pcm: bytes, frame_bytes: int = 640) -> list[bytes]:
    return [pcm[start : start + frame_bytes] for start in range(0, len(pcm), frame_bytes)]


class FakeInference:
    """All roles, scripted. `is_away` makes `status` raise as an unreachable process would."""

    def __init__(
        self,
        *,
        stt: FakeSpeechToText | None = None,
        llm: FakeLanguageModel | None = None,
        tts: FakeTextToSpeech | None = None,
        encoder: FakeSpeakerEncoder | None = None,
    ) -> None:
        self.stt = stt or FakeSpeechToText()
        self.llm = llm or FakeLanguageModel()
        self.tts = tts or FakeTextToSpeech()
        self.encoder = encoder or FakeSpeakerEncoder()
        self.is_away = False
        self.is_closed = False
        self._started_at = time.time()

    def start_outage(self) -> None:
        """Fail as a killed process does: break active calls, refuse new ones."""
        self.is_away = True
        self.stt.start_outage()
        self.llm.start_outage()
        self.tts.start_outage()
        self.encoder.start_outage()

    def end_outage(self) -> None:
        self.is_away = False
        self.stt.end_outage()
        self.llm.end_outage()
        self.tts.end_outage()
        self.encoder.end_outage()

    @property
    def active_calls(self) -> int:
        """Active calls of all roles: 0 when nothing is left of a conversation."""
        return self.llm.prefill_calls.active + sum(
            engine.calls.active for engine in (self.stt, self.llm, self.tts, self.encoder)
        )

    async def status(self) -> InferenceStatus:
        if self.is_away:
            raise InferenceUnavailable("the scripted process is away")
        active = {
            Role.STT: self.stt.calls.active,
            Role.LLM: self.llm.calls.active,
            Role.TTS: self.tts.calls.active,
            Role.ENCODER: self.encoder.calls.active,
        }
        return InferenceStatus(
            profile="fake",
            roles=tuple(
                RoleStatus(
                    role=role,
                    state=RoleState.READY,
                    engine="fake",
                    model="script",
                    device="cpu",
                    load_s=0.0,
                    memory_bytes=0,
                    active_calls=active[role],
                    clones=role is Role.TTS and self.tts.can_clone,
                )
                for role in Role
            ),
            resident_bytes=0,
            started_at=self._started_at,
        )

    async def read_metrics(self) -> bytes:
        return EngineMetrics().render(await self.status())

    async def close(self) -> None:
        self.is_closed = True


def make_inference(
    *transcripts: str, replies: list[str] | None = None, ms_per_character: int = 10, **options: Any
) -> FakeInference:
    """Engines that answer at once, in very short sounds: a reply is over before a test could wait for it."""
    return FakeInference(
        stt=FakeSpeechToText(transcripts, **options),
        llm=FakeLanguageModel(replies or []),
        tts=FakeTextToSpeech(ms_per_character=ms_per_character),
    )


class Call:
    """A running call, everything it has sent in order, and everything it wants kept."""

    def __init__(self, inference: FakeInference, *, history: list[Message] | None = None, **settings: Any) -> None:
        self.inference = inference
        self.sent: list[ServerMessage | bytes] = []
        #: When, by the loop's clock.
        self.sent_at: list[float] = []
        self.kept: list[SaidTurn] = []
        #: What was kept of replies before they ended, and which of those were taken back.
        self.begun: list[BegunTurn | DroppedTurn] = []
        self.corrected: list[CorrectedTurn] = []
        #: What is not remembered any more, by the turn that can be corrected.
        self.past: dict[UUID, list[PastTurn]] = {}
        #: How long the socket takes to accept a message.
        self.send_s: dict[type, float] = {}
        self.voices: dict[UUID | None, Voice] = {None: Voice()}
        self.is_storage_away = False
        #: What voices, past turns and uploads wait for, and what then goes wrong with them.
        self.may_find = asyncio.Event()
        self.may_find.set()
        self.find_s = 0.0
        self.failure: Exception | None = None
        #: How far the call's clock is ahead of ours.
        self.clock_ahead_s = 0.0
        self._changed = asyncio.Event()
        self.runner = CallRunner(
            stt=inference.stt,
            llm=inference.llm,
            tts=inference.tts,
            send_event=self._send,
            send_audio=self._send,
            record=self._record,
            history=[PastTurn(uuid4(), message) for message in history or []],
            settings=CallSettings(**{"first_retry_s": 0.01, "last_retry_s": 0.02} | settings),
            find_voice=self._find_voice,
            find_past=self._find_past,
            decode_audio=self._decode,
            make_audio_url=lambda turn_id: f"/audio/{turn_id}",
            clock=lambda: asyncio.get_running_loop().time() + self.clock_ahead_s,
        )

    async def _send(self, message: ServerMessage | bytes) -> None:
        self.sent.append(message)
        self.sent_at.append(asyncio.get_running_loop().time())
        self._changed.set()
        await asyncio.sleep(self.send_s.get(type(message), 0))

    def _record(self, turn: SaidTurn | BegunTurn | DroppedTurn | CorrectedTurn) -> None:
        if isinstance(turn, CorrectedTurn):
            self.corrected.append(turn)
        elif isinstance(turn, BegunTurn | DroppedTurn):
            self.begun.append(turn)
        else:
            self.kept.append(turn)
        self._changed.set()

    async def _find(self) -> None:
        await self.may_find.wait()
        await asyncio.sleep(self.find_s)
        if self.failure is not None:
            raise self.failure

    async def _find_voice(self, voice_profile_id: UUID | None) -> Voice | None:
        await self._find()
        if self.is_storage_away:
            raise VoiceUnreadable
        return self.voices.get(voice_profile_id)

    async def _find_past(self, turn_id: UUID) -> list[PastTurn] | None:
        await self._find()
        return self.past.get(turn_id)

    async def _decode(self, data: bytes, kind: AudioFormat, max_ms: int) -> bytes:
        await self._find()
        return data

    async def speak_live(self, pcm: bytes) -> None:
        """Speak as a microphone does: a frame every 20 ms."""
        for frame in cut_frames(pcm):
            await asyncio.sleep(0.02)
            self.runner.push_frame(frame)

    def speak(self, pcm: bytes) -> None:
        for frame in cut_frames(pcm):
            self.runner.push_frame(frame)

    def send(self, message: messages.ClientMessage) -> None:
        self.runner.push_message(message)

    def list_of(self, kind: type[Message_]) -> list[Message_]:
        return [message for message in self.sent if isinstance(message, kind)]

    async def until(self, is_true: Callable[[], Any]) -> None:
        """Return once `is_true` does, looking each time that something was sent or kept, and now and then."""
        async with asyncio.timeout(PATIENCE_S):
            while not is_true():
                self._changed.clear()
                try:
                    async with asyncio.timeout(0.01):
                        await self._changed.wait()
                except TimeoutError:
                    pass

    async def wait_for(
        self, kind: type[Message_], *, count: int = 1, where: Callable[[Message_], bool] = lambda m: True
    ) -> Message_:
        """Return the `count`-th message of a kind, when it has been sent."""

        def find() -> list[Message_]:
            return [message for message in self.list_of(kind) if where(message)]

        try:
            await self.until(lambda: len(find()) >= count)
        except TimeoutError:
            raise AssertionError(f"no {kind.__name__} among {describe(self.sent)}") from None
        return find()[count - 1]

    async def wait_for_kept(self, speaker: str) -> SaidTurn:
        """Return the first turn of `speaker`, when it is kept; that is some steps after its end was announced."""
        await self.until(lambda: any(turn.speaker == speaker for turn in self.kept))
        return next(turn for turn in self.kept if turn.speaker == speaker)

    async def wait_until_listening(self, count: int = 1) -> None:
        """Return when so many replies are over."""
        await self.wait_for(
            messages.Status, count=count, where=lambda m: m.stage == "listening" and m.is_speaking is False
        )


def describe(sent: list[ServerMessage | bytes]) -> str:
    """Name what was sent, a run of audio as one."""
    names = ["audio" if isinstance(message, bytes) else type(message).__name__ for message in sent]
    return ", ".join(name for name, _ in itertools.groupby(names))


@asynccontextmanager
async def open_call(
    inference: FakeInference, *, history: list[Message] | None = None, **settings: Any
) -> AsyncIterator[Call]:
    """A call that is hung up at the end; then nothing of it may be left."""
    call = Call(inference, history=history, **settings)
    task = asyncio.create_task(call.runner.run())
    await asyncio.sleep(0)  # it has begun: what is sent is handled at once
    try:
        yield call
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
    assert inference.active_calls == 0
