from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from inference.interfaces import DiscardUtterance, EndOfUtterance, PartialTranscript, TranscriptionOptions
from realtime.call.events import RecogniserEvent, RecognitionFailed, SpeechBegan, TranscriptReceived
from realtime.call.settings import CallSettings
from realtime.recogniser import MicrophoneQueue, Recogniser, RecogniserDeadline
from tests.clock import Clock
from tests.fakes import PAUSE, SPEECH, FakeSpeechToText, cut_frames, make_silence

Kind = TypeVar("Kind")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def microphone(clock: Clock) -> MicrophoneQueue:
    return MicrophoneQueue(max_queued_ms=100, kept_ms=200, clock=clock)


def make_frame(number: int) -> bytes:
    return bytes([number, 0]) * 320


class TestMicrophoneQueue:
    async def test_keeps_audio_and_markers_in_order(self, microphone: MicrophoneQueue) -> None:
        microphone.push(make_frame(1))
        microphone.put(EndOfUtterance())
        microphone.push(make_frame(2))

        stream = microphone.open_stream()

        assert [await anext(stream) for _ in range(3)] == [make_frame(1), EndOfUtterance(), make_frame(2)]

    async def test_drops_the_oldest_audio_and_no_markers(self, microphone: MicrophoneQueue) -> None:
        microphone.put(EndOfUtterance())
        for number in range(7):
            microphone.push(make_frame(number))

        stream = microphone.open_stream()

        assert await anext(stream) == EndOfUtterance()
        assert await anext(stream) == b"".join(map(make_frame, range(2, 7)))
        assert microphone.dropped_bytes == 2 * 640

    async def test_gives_all_that_waits_in_one_piece_up_to_the_next_marker(
        self, microphone: MicrophoneQueue, clock: Clock
    ) -> None:
        for number in range(3):
            microphone.push(make_frame(number))
            clock.now += 0.02
        microphone.put(EndOfUtterance())
        microphone.push(make_frame(3))
        stream = microphone.open_stream()

        pieces = [await anext(stream) for _ in range(3)]

        assert pieces == [b"".join(map(make_frame, range(3))), EndOfUtterance(), make_frame(3)]
        # When each frame had been received is known nevertheless.
        received = [microphone.find_received_at(ms) for ms in (20, 40, 60)]
        assert received == pytest.approx([100.0, 100.02, 100.04])

    async def test_gives_no_more_in_one_piece_than_a_message_holds(self, clock: Clock) -> None:
        microphone = MicrophoneQueue(max_queued_ms=60_000, kept_ms=200, clock=clock)
        for _ in range(1200):
            microphone.push(make_frame(1))
        stream = microphone.open_stream()

        sizes = [len(piece) for piece in [await anext(stream) for _ in range(2)] if isinstance(piece, bytes)]

        assert sizes == [512_000, 256_000]

    async def test_puts_what_was_decided_later_where_its_place_was(self, microphone: MicrophoneQueue) -> None:
        microphone.push(make_frame(1))
        place = microphone.reserve()
        microphone.push(make_frame(2))
        stream = microphone.open_stream()
        assert await anext(stream) == make_frame(1)
        task = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()

        microphone.fill(place, [EndOfUtterance()])

        assert await asyncio.wait_for(task, 5) == EndOfUtterance()
        assert await anext(stream) == make_frame(2)

    async def test_keeps_uploaded_audio_when_the_microphone_goes_on(self, microphone: MicrophoneQueue) -> None:
        place = microphone.reserve()
        microphone.fill(place, [make_frame(9) * 10, EndOfUtterance()])
        for number in range(7):
            microphone.push(make_frame(number))

        stream = microphone.open_stream()

        assert await anext(stream) == make_frame(9) * 10

    async def test_puts_an_upload_last_whose_place_is_gone(self, microphone: MicrophoneQueue) -> None:
        place = microphone.reserve()
        microphone.clear()
        microphone.push(make_frame(1))

        microphone.fill(place, [make_frame(2), EndOfUtterance()])

        stream = microphone.open_stream()
        assert await anext(stream) == make_frame(1) + make_frame(2)

    async def test_keeps_an_end_for_each_utterance(self, microphone: MicrophoneQueue) -> None:
        for _ in range(2):
            microphone.put(EndOfUtterance())
        microphone.push(make_frame(1))

        stream = microphone.open_stream()

        assert [await anext(stream) for _ in range(3)] == [EndOfUtterance(), EndOfUtterance(), make_frame(1)]

    async def test_logs_lost_audio_once_a_burst(
        self, microphone: MicrophoneQueue, caplog: pytest.LogCaptureFixture
    ) -> None:
        stream = microphone.open_stream()
        for _ in range(2):
            for number in range(8):
                microphone.push(make_frame(number))
            assert microphone.is_dropping
            await anext(stream)
            assert not microphone.is_dropping
        for number in range(6):
            microphone.push(make_frame(number))
        microphone.close_stream()

        assert [record.getMessage()[:58] for record in caplog.records] == [
            "dropped 60 ms of microphone audio, 60 ms in this call: the",
            "dropped 60 ms of microphone audio, 120 ms in this call: th",
            "dropped 20 ms of microphone audio, 140 ms in this call: th",
        ]

    async def test_discards_what_waits(self, microphone: MicrophoneQueue) -> None:
        microphone.push(make_frame(1))
        microphone.discard()
        microphone.push(make_frame(2))

        stream = microphone.open_stream()

        assert [await anext(stream), await anext(stream)] == [DiscardUtterance(), make_frame(2)]

    async def test_does_not_pile_up_changes_of_options(self, microphone: MicrophoneQueue) -> None:
        for pause_ms in range(200, 3000):
            microphone.put(TranscriptionOptions(pause_ms=pause_ms))
        microphone.push(make_frame(1))

        stream = microphone.open_stream()

        assert await anext(stream) == TranscriptionOptions(pause_ms=2999)
        assert await anext(stream) == make_frame(1)

    async def test_waits_for_audio_only(self, microphone: MicrophoneQueue) -> None:
        task = asyncio.create_task(microphone.wait())
        microphone.put(EndOfUtterance())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()

        microphone.push(make_frame(1))

        await asyncio.wait_for(task, 5)

    async def test_ends_a_stream_when_it_is_closed(self, microphone: MicrophoneQueue) -> None:
        stream = microphone.open_stream()
        task = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)

        microphone.close_stream()

        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(task, 5)

    async def test_knows_when_audio_had_been_received(self, microphone: MicrophoneQueue, clock: Clock) -> None:
        stream = microphone.open_stream()
        for number in range(4):
            microphone.push(make_frame(number))
            clock.now += 0.02
            await anext(stream)

        assert microphone.find_received_at(20) == pytest.approx(100.0)
        assert microphone.find_received_at(21) == pytest.approx(100.02)
        assert microphone.find_received_at(80) == pytest.approx(100.06)
        assert microphone.find_received_at(9999) == pytest.approx(100.06)

    async def test_gives_back_the_last_of_what_was_taken(self, microphone: MicrophoneQueue) -> None:
        stream = microphone.open_stream()
        for number in range(20):
            microphone.push(make_frame(number))
            await anext(stream)

        assert microphone.taken.read(300, 340) == make_frame(15) + make_frame(16)
        assert microphone.taken.read(100, 240) == make_frame(10) + make_frame(11)
        assert microphone.received_ms == 400

    async def test_counts_each_stream_from_zero(self, microphone: MicrophoneQueue) -> None:
        stream = microphone.open_stream()
        microphone.push(make_frame(1))
        await anext(stream)

        stream = microphone.open_stream()
        microphone.push(make_frame(2))
        await anext(stream)

        assert microphone.received_ms == 20
        assert microphone.taken.read(0, 100) == make_frame(2)


class TestRecogniserDeadline:
    def test_counts_audio_while_something_is_due(self) -> None:
        deadline = RecogniserDeadline(max_ms=1000)

        assert [deadline.add(500, is_due=True) for _ in range(3)] == [False, False, True]

    def test_begins_again_with_each_event_and_with_nothing_due(self) -> None:
        deadline = RecogniserDeadline(max_ms=1000)

        deadline.add(900, is_due=True)
        deadline.reset()
        assert not deadline.add(900, is_due=True)
        deadline.add(20, is_due=False)
        assert not deadline.add(900, is_due=True)


class Listener:
    """A recogniser that runs, and what it has reported."""

    def __init__(self, stt: FakeSpeechToText, *, options: TranscriptionOptions | None = None, **settings: Any) -> None:
        self.reports: list[RecogniserEvent] = []
        self.reported_at: list[float] = []
        self.recogniser = Recogniser(
            stt=stt,
            options=options or TranscriptionOptions(),
            settings=CallSettings(**settings),
            report=self._report,
            clock=self.read_clock,
        )

    def read_clock(self) -> float:
        return asyncio.get_running_loop().time()

    def _report(self, event: RecogniserEvent) -> None:
        self.reports.append(event)
        self.reported_at.append(self.read_clock())

    async def speak(self, pcm: bytes) -> None:
        """A frame every 20 ms."""
        for frame in cut_frames(pcm):
            self.recogniser.push(frame)
            await asyncio.sleep(0.02)

    def list_of(self, kind: type[Kind]) -> list[Kind]:
        return [report for report in self.reports if isinstance(report, kind)]


@asynccontextmanager
async def listening(stt: FakeSpeechToText, **settings: Any) -> AsyncIterator[Listener]:
    listener = Listener(stt, **settings)
    task = asyncio.create_task(listener.recogniser.run())
    try:
        yield listener
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert stt.calls.active == 0


@pytest.mark.virtual_clock
class TestRecogniser:
    HELD = TranscriptionOptions(endpointing=False)

    async def test_reports_times_and_sound_for_positions(self) -> None:
        async with listening(FakeSpeechToText(["你好"])) as listener:
            began_at = listener.read_clock()
            await listener.speak(make_silence(1000) + SPEECH + PAUSE)

        (began,) = listener.list_of(SpeechBegan)
        (said,) = listener.list_of(TranscriptReceived)
        assert began.received_ms == 200
        assert (said.text, said.speech) == ("你好", SPEECH)
        assert said.pcm == make_silence(200) + SPEECH + make_silence(200)
        # The last frame of speech is received 20 ms before it would be over.
        assert said.ended_at - began_at == pytest.approx(1.58, abs=0.001)

    async def test_reports_what_was_received_after_the_transcript(self) -> None:
        async with listening(FakeSpeechToText(["你好"], recognition_s=1.0)) as listener:
            await listener.speak(SPEECH + PAUSE + make_silence(700) + SPEECH)
            await asyncio.sleep(2)

        said = listener.list_of(TranscriptReceived)[0]
        assert said.newer.endswith(SPEECH)

    async def test_reopens_with_a_back_off_while_there_is_audio(self) -> None:
        stt = FakeSpeechToText()
        stt.start_outage()
        async with listening(stt, first_retry_s=0.5, last_retry_s=5.0) as listener:
            await listener.speak(make_silence(20_000))
            failed_at = listener.reported_at
            waits = [round(after - before, 1) for before, after in itertools.pairwise(failed_at)]
            started = stt.calls.started
            await asyncio.sleep(60)  # nothing to hear: nothing is opened
            assert stt.calls.started <= started + 1
            stt.end_outage()
            await listener.speak(make_silence(6000) + SPEECH + PAUSE)

        assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]
        assert [failed.is_news for failed in listener.list_of(RecognitionFailed)][:3] == [True, False, False]
        assert len(listener.list_of(TranscriptReceived)) == 1

    async def test_gives_up_on_a_transcript_that_was_asked_for(self) -> None:
        async with listening(FakeSpeechToText(recognition_s=600), options=self.HELD, transcript_s=30.0) as listener:
            listener.recogniser.push(SPEECH)
            asked_at = listener.read_clock()
            listener.recogniser.put(EndOfUtterance())
            await asyncio.sleep(31)

        assert [type(report) for report in listener.reports] == [SpeechBegan, PartialTranscript, RecognitionFailed]
        assert listener.reported_at[-1] - asked_at == pytest.approx(30.0, abs=0.001)

    async def test_gives_each_transcript_that_was_asked_for_its_time(self) -> None:
        stt = FakeSpeechToText(["一"], recognition_s=10)
        async with listening(stt, options=self.HELD, transcript_s=30.0) as listener:
            asked_at = listener.read_clock()
            for _ in range(2):
                listener.recogniser.push(SPEECH)
                listener.recogniser.put(EndOfUtterance())
            await asyncio.sleep(5)
            stt.recognition_s = 600
            await asyncio.sleep(40)

        assert [said.text for said in listener.list_of(TranscriptReceived)] == ["一"]
        assert isinstance(listener.reports[-1], RecognitionFailed)
        assert listener.reported_at[-1] - asked_at == pytest.approx(40.0, abs=0.001)

    async def test_hands_free_gives_up_after_audio_in_which_nothing_was_said(self) -> None:
        async with listening(FakeSpeechToText(recognition_s=600), transcript_s=3.0) as listener:
            await listener.speak(SPEECH)
            # Muted for an hour: without audio there is nothing to say.
            await asyncio.sleep(3600)
            assert listener.list_of(RecognitionFailed) == []
            spoke_at = listener.read_clock()
            await listener.speak(make_silence(4000))

        (failed,) = listener.list_of(RecognitionFailed)
        assert failed.is_news
        # 200 ms of speech were counted since it said last that a partial transcript is there.
        assert listener.reported_at[-1] - spoke_at == pytest.approx(2.8, abs=0.05)

    async def test_hands_free_waits_without_end_in_silence(self) -> None:
        async with listening(FakeSpeechToText(), transcript_s=3.0) as listener:
            await listener.speak(make_silence(20_000))

        assert listener.reports == []

    async def test_holds_a_whole_utterance_for_a_recogniser_that_is_behind(self) -> None:
        listener = Listener(FakeSpeechToText(), options=self.HELD, max_utterance_s=60, max_queued_ms=1000)

        for frame in cut_frames(make_silence(60_000)):
            listener.recogniser.push(frame)
        assert listener.recogniser._queue.dropped_bytes == 0

        listener.recogniser.put(TranscriptionOptions())
        listener.recogniser.push(make_silence(20))
        assert listener.recogniser._queue.dropped_bytes > 0
