"""
`make bench-replay`: how long the decisions of one minute of a call take.

A minute as it was recorded is a list of inputs: 3000 frames, speech that begins and ends, partial and provisional
transcripts, replies with their clauses and the client's playback reports. It is replayed through the call's machine
without an event loop. The best of many runs counts, in processor time of this thread: other work on the machine only
makes it slower. Fails when that is more than REQUIRED_MS.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from inference.interfaces import PartialTranscript, ProvisionalTranscript, Quality, SpeechResumed
from realtime import messages
from realtime.call import events
from realtime.call.events import Effect, Input, ReplyReport
from realtime.call.machine import CallMachine
from realtime.call.settings import CallSettings
from tests.bench.conversation import machine as describe_machine

FRAME_S = 0.02
FRAMES = 3000
#: A turn: 2.4 s of speech with partial transcripts, a pause, a reply of 5 s, and the next one.
TURN_FRAMES = 500
RUNS = 50
REQUIRED_MS = 10.0


class Ids:
    """Numbers in the order in which a machine asks for them: the recorded replies are known by theirs."""

    def __init__(self) -> None:
        self._last = 0

    def __call__(self) -> UUID:
        self._last += 1
        return UUID(int=self._last)


def record_minute() -> list[tuple[float, Input]]:
    """Return the inputs of a minute with their times. Every third reply is interrupted by speech."""
    recorded: list[tuple[float, Input]] = []
    recording = CallMachine(settings=CallSettings(), history=(), make_id=Ids())

    def feed(frame: int, event: Input) -> list[Effect]:
        now = 1000 + frame * FRAME_S
        recorded.append((now, event))
        effects = recording.receive(event, now)
        for effect in effects:
            if isinstance(effect, events.CancelReply) and effect.turn_id == replies[-1]:
                feed(frame, events.ReplyStopped(report(effect.turn_id, heard_ms=1200)))
        return effects

    replies: list[UUID] = [UUID(int=0)]
    feed(0, events.CallStarted())
    for frame in range(FRAMES):
        turn, place = divmod(frame, TURN_FRAMES)
        feed(frame, events.FrameReceived(640))
        now = 1000 + frame * FRAME_S
        text = f"今天第{turn}次的天氣怎麼樣"
        if place == 10:
            feed(frame, events.SpeechBegan(200))
        elif place in (30, 54, 78, 102):
            feed(frame, PartialTranscript(text[: place // 9], "zh"))
        elif place == 110:
            feed(frame, ProvisionalTranscript(text[:-2], "zh"))
        elif place == 115:
            feed(frame, SpeechResumed())
        elif place == 140:
            feed(frame, ProvisionalTranscript(text, "zh"))
        elif place == 160:
            final = events.TranscriptReceived(text + "？", "zh", ended_at=now - 0.6, pcm=bytes(64_000))
            for effect in feed(frame, final):
                if isinstance(effect, events.CommitReply):
                    replies.append(effect.turn_id)
        elif place in (180, 230, 280, 330):
            said = "我查不到即時的天氣，出門前看一下氣象預報喔。"[: place // 14]
            feed(frame, events.ClauseBegan(replies[-1], said, (None,) * (place // 50)))
        elif place == 400:
            feed(frame, events.ReplySent(report(replies[-1])))
        elif place == 450 and turn % 3 != 2:
            feed(frame, events.ReplyEnded(report(replies[-1])))
        if 180 <= place < 450 and place % 12 == 0:
            feed(frame, messages.PlaybackMessage(replies[-1], (place - 180) * 20))
    feed(FRAMES, events.CallEnded(None))
    return recorded


def report(turn_id: UUID, *, heard_ms: int = 5000) -> ReplyReport:
    return ReplyReport(
        turn_id=turn_id,
        text="我查不到即時的天氣，出門前看一下氣象預報喔。",
        heard_text="我查不到即時的",
        heard_ms=heard_ms,
        audio_ms=5000,
        quality=Quality.FAST,
        latency=messages.LatencyMs(),
        pcm=bytes(240_000),
        sample_rate_hz=24_000,
    )


def replay(recorded: list[tuple[float, Input]]) -> list[list[Effect]]:
    """Run the inputs through a new machine."""
    replayed = CallMachine(settings=CallSettings(), history=(), make_id=Ids())
    return [replayed.receive(event, now) for now, event in recorded]


def count_effects(effects: list[list[Effect]]) -> Counter[str]:
    return Counter(type(effect).__name__ for each in effects for effect in each)


def measure_ms(recorded: list[tuple[float, Input]]) -> float:
    """Return the processor time that one replay takes this thread."""
    began_s = time.thread_time()
    replay(recorded)
    return (time.thread_time() - began_s) * 1000


def judge(times_ms: Sequence[float]) -> tuple[str, int]:
    """Return a line with the verdict, and the exit status."""
    best_ms = min(times_ms)
    measured = f"best {best_ms:.2f} ms, median {statistics.median(times_ms):.2f} ms of {len(times_ms)} runs"
    is_fast = best_ms < REQUIRED_MS
    verdict = "within" if is_fast else "MORE THAN"
    return f"one minute of a call: {measured}: {verdict} {REQUIRED_MS:g} ms", 0 if is_fast else 1


def main() -> int:
    recorded = record_minute()
    effects = count_effects(replay(recorded))
    kinds = Counter(type(event).__name__ for _, event in recorded)
    print(f"{describe_machine()}, load {os.getloadavg()[0]:.1f}")
    print(f"{len(recorded)} inputs: {', '.join(f'{count} {name}' for name, count in kinds.most_common())}")
    print(f"effects: {', '.join(f'{count} {name}' for name, count in effects.most_common())}")
    verdict, status = judge([measure_ms(recorded) for _ in range(RUNS)])
    print(verdict)
    return status


if __name__ == "__main__":
    sys.exit(main())
