from __future__ import annotations

import asyncio

import pytest

from inference.interfaces import DiscardUtterance, EndOfUtterance, TranscriptionOptions
from realtime.hearing import Microphone, UtteranceMeter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def microphone(clock: Clock) -> Microphone:
    return Microphone(max_queued_ms=100, kept_ms=200, clock=clock)


def make_frame(number: int) -> bytes:
    return bytes([number, 0]) * 320


class TestMicrophone:
    async def test_keeps_audio_and_markers_in_order(self, microphone: Microphone) -> None:
        microphone.push(make_frame(1))
        microphone.put(EndOfUtterance())
        microphone.push(make_frame(2))

        stream = microphone.open_stream()

        assert [await anext(stream) for _ in range(3)] == [make_frame(1), EndOfUtterance(), make_frame(2)]

    async def test_drops_the_oldest_audio_and_no_markers(self, microphone: Microphone) -> None:
        microphone.put(EndOfUtterance())
        for number in range(7):
            microphone.push(make_frame(number))

        stream = microphone.open_stream()

        assert [await anext(stream) for _ in range(6)] == [EndOfUtterance(), *map(make_frame, range(2, 7))]
        assert microphone.dropped_bytes == 2 * 640

    async def test_discards_what_waits(self, microphone: Microphone) -> None:
        microphone.push(make_frame(1))
        microphone.discard()
        microphone.push(make_frame(2))

        stream = microphone.open_stream()

        assert [await anext(stream), await anext(stream)] == [DiscardUtterance(), make_frame(2)]

    async def test_does_not_pile_up_changes_of_options(self, microphone: Microphone) -> None:
        for pause_ms in range(200, 3000):
            microphone.put(TranscriptionOptions(pause_ms=pause_ms))
        microphone.push(make_frame(1))

        stream = microphone.open_stream()

        assert await anext(stream) == TranscriptionOptions(pause_ms=2999)
        assert await anext(stream) == make_frame(1)

    async def test_waits_for_audio_only(self, microphone: Microphone) -> None:
        task = asyncio.create_task(microphone.wait())
        microphone.put(EndOfUtterance())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()

        microphone.push(make_frame(1))

        await asyncio.wait_for(task, 5)

    async def test_ends_a_stream_when_it_is_closed(self, microphone: Microphone) -> None:
        stream = microphone.open_stream()
        task = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)

        microphone.close_stream()

        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(task, 5)

    async def test_knows_when_audio_had_been_received(self, microphone: Microphone, clock: Clock) -> None:
        stream = microphone.open_stream()
        for number in range(4):
            microphone.push(make_frame(number))
            clock.now += 0.02
            await anext(stream)

        assert microphone.find_received_at(20) == pytest.approx(100.0)
        assert microphone.find_received_at(21) == pytest.approx(100.02)
        assert microphone.find_received_at(80) == pytest.approx(100.06)
        assert microphone.find_received_at(9999) == pytest.approx(100.06)

    async def test_gives_back_the_last_of_what_was_taken(self, microphone: Microphone) -> None:
        stream = microphone.open_stream()
        for number in range(20):
            microphone.push(make_frame(number))
            await anext(stream)

        assert microphone.read_audio(300, 340) == make_frame(15) + make_frame(16)
        assert microphone.read_audio(100, 240) == make_frame(10) + make_frame(11)
        assert microphone.received_ms == 400

    async def test_counts_each_stream_from_zero(self, microphone: Microphone) -> None:
        stream = microphone.open_stream()
        microphone.push(make_frame(1))
        await anext(stream)

        stream = microphone.open_stream()
        microphone.push(make_frame(2))
        await anext(stream)

        assert microphone.received_ms == 20
        assert microphone.read_audio(0, 100) == make_frame(2)


class TestUtteranceMeter:
    @pytest.mark.parametrize(
        ("pieces", "is_within"),
        [
            ([(100, 0, False)], True),
            ([(101, 0, False)], False),
            ([(60, 0, False), (40, 0, False)], True),
            ([(60, 0, False), (41, 0, False)], False),
            ([(1, 0, True)] * 3, True),
            ([(1, 0, True)] * 4, False),
            ([(1, 0, False)] * 4, True),
            ([(1, 1000, False)], True),
            ([(1, 1000.1, False)], False),
        ],
    )
    def test_holds_each_limit_at_its_edge(self, pieces: list[tuple[int, float, bool]], is_within: bool) -> None:
        meter = UtteranceMeter(max_bytes=100, max_chunks=3, max_ms=1000)

        results = [meter.add(size, audio_ms=ms, is_chunk=is_chunk) for size, ms, is_chunk in pieces]

        assert results[-1] is is_within
