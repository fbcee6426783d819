"""Client of the voice socket for `manage.py talk`: streams sound files in real time and measures the replies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from inference.audio.decode import AudioError, decode
from inference.audio.pcm import int16_from_float
from inference.interfaces import MICROPHONE_SAMPLE_RATE_HZ

FRAME_MS = 20
FRAME_SAMPLES = MICROPHONE_SAMPLE_RATE_HZ * FRAME_MS // 1000
#: A frame is speech if it is at most 30 dB below the loudest frame, and above the floor.
SPEECH_RATIO = 10 ** (-30 / 20)
SPEECH_FLOOR = 60.0
REPORT_S = 0.25
#: A longer file is refused.
MAX_SPEECH_S = 600.0
#: How long a reply may take after the end of speech, playing it included.
TURN_TIMEOUT_S = 180.0


class CallFailed(Exception):
    """Raised when the server refuses the call or closes it early."""


class UnreadableSound(Exception):
    """Raised for a file that is not a sound file, or holds no speech."""


@dataclass(slots=True)
class Exchange:
    """The result of one file. Latencies are milliseconds since the last frame of speech was sent."""

    file: str
    seconds: float
    transcript: str = ""
    reply: str = ""
    reply_seconds: float = 0.0
    latency_ms: dict[str, int | None] = field(default_factory=lambda: dict.fromkeys(("stt", "ttft", "ttfa", "total")))
    #: Silence inside the reply because audio came too late.
    gap_ms: int = 0
    server_latency_ms: dict[str, int | None] | None = None
    errors: list[str] = field(default_factory=list)
    saved_as: str | None = None


def read_speech(path: Path) -> npt.NDArray[np.int16]:
    """Read a sound file as 16 kHz mono, without the silence at its end. Raises UnreadableSound."""
    try:
        sound = decode(path.read_bytes(), max_s=MAX_SPEECH_S, sample_rate_hz=MICROPHONE_SAMPLE_RATE_HZ)
    except (OSError, AudioError) as error:
        raise UnreadableSound(f"{path}: {error}") from error
    speech = trim_end(int16_from_float(sound.samples))
    if not speech.size:
        raise UnreadableSound(f"{path}: nothing but silence")
    return speech


def trim_end(samples: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Remove whole frames of silence at the end; the last remaining frame holds speech."""
    whole = np.pad(samples, (0, -len(samples) % FRAME_SAMPLES)).reshape(-1, FRAME_SAMPLES)
    loudness = np.sqrt((whole.astype(np.float64) ** 2).mean(axis=1)) if len(whole) else np.zeros(0)
    is_speech = loudness > max(SPEECH_FLOOR, loudness.max(initial=0.0) * SPEECH_RATIO)
    end = int(np.flatnonzero(is_speech)[-1]) + 1 if is_speech.any() else 0
    return whole[:end].reshape(-1)


class _Speaker:
    """Simulates playout in real time and counts gaps."""

    def __init__(self) -> None:
        self.pcm = bytearray()
        self.sample_rate_hz = 24_000
        self.gap_ms = 0.0
        self._played_ms = 0.0
        self._known_at = 0.0

    def add(self, pcm: bytes) -> None:
        now = time.monotonic()
        played_ms = self.measure_played_ms(now)
        if self.pcm:
            self.gap_ms += (now - self._known_at) * 1000 - (played_ms - self._played_ms)
        self._played_ms, self._known_at = played_ms, now
        self.pcm += pcm

    @property
    def length_ms(self) -> float:
        return len(self.pcm) / 2 / self.sample_rate_hz * 1000

    def measure_played_ms(self, now: float) -> float:
        return min(self.length_ms, self._played_ms + (now - self._known_at) * 1000)


class Caller:
    """One call over an open connection: `exchange` sends speech and returns the reply."""

    def __init__(self, connection: ClientConnection, on_waiting: Callable[[int, int], None] | None = None) -> None:
        self._connection = connection
        self._on_waiting = on_waiting
        self._frames: deque[bytes] = deque()
        self._spoken = asyncio.Event()
        self._speech_ended_at = math.inf
        self._exchange: Exchange | None = None
        self._speaker = _Speaker()
        self._reply_id: str | None = None
        self._is_reply_sent = False
        self._ready = asyncio.Event()
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Send and receive until cancelled. Raises CallFailed when the server hangs up."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send_frames())
                group.create_task(self._receive())
                group.create_task(self._report_playback())
        except* ConnectionClosed as closed:
            error = closed.exceptions[0]
            raise CallFailed(f"the server closed the call: {error}") from None

    async def choose_voice(self, voice_profile_id: UUID) -> None:
        await self._ready.wait()
        await self._say(type="configure", voice_profile_id=str(voice_profile_id))

    async def exchange(self, name: str, speech: npt.NDArray[np.int16]) -> tuple[Exchange, bytes, int]:
        """Send speech, receive the whole reply, and return the result with the reply's PCM and its sample rate."""
        await self._ready.wait()
        exchange = Exchange(file=name, seconds=round(len(speech) / MICROPHONE_SAMPLE_RATE_HZ, 3))
        self._exchange = exchange
        self._speaker = _Speaker()
        self._over.clear()
        self._spoken.clear()
        self._speech_ended_at = math.inf
        frames = speech.astype("<i2").reshape(-1, FRAME_SAMPLES)
        self._frames.extend(frame.tobytes() for frame in frames)
        await self._spoken.wait()
        try:
            async with asyncio.timeout(TURN_TIMEOUT_S):
                await self._over.wait()
        except TimeoutError:
            exchange.errors.append(f"no reply within {TURN_TIMEOUT_S:g} s")
        self._exchange = None
        exchange.gap_ms = round(self._speaker.gap_ms)
        exchange.reply_seconds = round(self._speaker.length_ms / 1000, 3)
        return exchange, bytes(self._speaker.pcm), self._speaker.sample_rate_hz

    async def _say(self, **message: Any) -> None:
        await self._connection.send(json.dumps(message))

    async def _send_frames(self) -> None:
        """Send a frame every 20 ms, of silence where there is no speech, as a microphone does."""
        await self._ready.wait()
        silence = bytes(FRAME_SAMPLES * 2)
        due_at = time.monotonic()
        while True:
            was_speech = bool(self._frames)
            await self._connection.send(self._frames.popleft() if was_speech else silence)
            if was_speech and not self._frames:
                self._speech_ended_at = time.monotonic()
                self._spoken.set()
            due_at += FRAME_MS / 1000
            await asyncio.sleep(max(0.0, due_at - time.monotonic()))

    async def _report_playback(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            if self._reply_id is None:
                continue
            played_ms = self._speaker.measure_played_ms(time.monotonic())
            is_finished = self._is_reply_sent and played_ms >= self._speaker.length_ms
            reply_id = self._reply_id
            if is_finished:
                self._reply_id = None
            await self._say(type="playback", turn_id=reply_id, played_ms=int(played_ms), is_finished=is_finished)

    async def _receive(self) -> None:
        async for data in self._connection:
            if isinstance(data, bytes):
                self._speaker.add(data)
                self._mark("ttfa", is_first=True)
                self._mark("total", is_first=False)
            else:
                self._handle(json.loads(data))
        raise CallFailed(f"the server closed the call ({self._connection.close_code})")

    def _mark(self, name: str, *, is_first: bool) -> None:
        exchange = self._exchange
        if exchange is not None and not (is_first and exchange.latency_ms[name] is not None):
            # Zero while speech is still being sent: an endpoint inside the file. The next transcript starts over.
            passed_s = time.monotonic() - self._speech_ended_at if self._spoken.is_set() else 0.0
            exchange.latency_ms[name] = round(passed_s * 1000)

    def _handle(self, message: dict[str, Any]) -> None:
        exchange = self._exchange
        match message:
            case {"type": "status", "stage": "ready"}:
                self._ready.set()
            case {"type": "waiting"}:
                if self._on_waiting is not None:
                    self._on_waiting(message["place"], message["count"])
            case {"type": "error"}:
                if exchange is not None:
                    exchange.errors.append(describe_error(message))
                    if "turn_id" not in message and self._spoken.is_set():
                        self._over.set()
                if message["is_fatal"] or not self._ready.is_set():
                    raise CallFailed(describe_error(message))
            case {"type": "transcription", "is_final": True} if exchange is not None:
                self._start_reply(exchange, message["text"])
            case {"type": "llm_response", "is_final": False}:
                self._mark("ttft", is_first=True)
            case {"type": "llm_response", "is_final": True} if exchange is not None:
                exchange.reply = message["text"]
            case {"type": "tts_ready"}:
                self._reply_id = message["turn_id"]
                self._speaker.sample_rate_hz = message["sample_rate"]
            case {"type": "interrupted"}:
                self._reply_id = None
            case {"type": "turn_end"} if exchange is not None:
                self._is_reply_sent = True
                exchange.server_latency_ms = message["latency_ms"]
            case {"type": "status", "stage": "listening", "is_speaking": False}:
                if self._spoken.is_set() and not self._frames:
                    self._over.set()

    def _start_reply(self, exchange: Exchange, text: str) -> None:
        """Start over: of a file with long pauses (several turns) the last turn is measured; all words are kept."""
        exchange.transcript = " ".join(part for part in (exchange.transcript, text) if part)
        exchange.latency_ms = dict.fromkeys(exchange.latency_ms)
        exchange.reply = ""
        exchange.server_latency_ms = None
        self._speaker = _Speaker()
        self._is_reply_sent = False
        self._mark("stt", is_first=True)
        if not text:
            exchange.errors.append("nothing was heard")


def describe_error(message: dict[str, Any]) -> str:
    return f"{message['code']}: {message.get('detail') or message['error']}"


@contextlib.asynccontextmanager
async def open_call(
    url: str, *, headers: dict[str, str], on_waiting: Callable[[int, int], None] | None = None
) -> AsyncGenerator[Caller]:
    """
    Connect to `ws(s)://…/ws/chat` and hold a call. Raises CallFailed, OSError.

    While all places are taken, `on_waiting` is called with the call's place in the list and how many wait.
    """
    async with connect(url, additional_headers=headers, max_size=None, proxy=None) as connection:
        caller = Caller(connection, on_waiting)
        # A failed call cancels the body, which would wait for a reply that cannot come.
        with _unwrapped_failure():
            async with asyncio.TaskGroup() as group:
                task = group.create_task(caller.run())
                yield caller
                task.cancel()


@contextlib.contextmanager
def _unwrapped_failure() -> Iterator[None]:
    try:
        yield
    except ExceptionGroup as failures:
        found, other = failures.split(CallFailed)
        if found is None or other is not None:
            raise
        error: BaseException = found
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
