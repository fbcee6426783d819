from __future__ import annotations

from collections.abc import AsyncGenerator

from inference.engines.chinese_script import stream_taiwanese
from inference.interfaces import GenerationEvent, GenerationFinished, TextDelta

FINISHED = GenerationFinished("stop", prompt_tokens=3, completion_tokens=4)


class Reply:
    """A reply in pieces, which knows whether it was closed."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces
        self.is_closed = False

    async def stream(self) -> AsyncGenerator[GenerationEvent]:
        try:
            for piece in self.pieces:
                yield TextDelta(piece)
            yield FINISHED
        finally:
            self.is_closed = True


class TestStreamTaiwanese:
    async def test_converts_words_that_are_cut_in_two(self) -> None:
        events = [event async for event in stream_taiwanese(Reply("这个软", "件很好").stream())]

        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        assert text == "這個軟體很好"
        assert events[-1] == FINISHED

    async def test_passes_traditional_text_piece_by_piece(self) -> None:
        events = [event async for event in stream_taiwanese(Reply("你好", "嗎？").stream())]

        assert events == [TextDelta("你好"), TextDelta("嗎？"), FINISHED]

    async def test_closes_the_reply_when_it_is_closed(self) -> None:
        reply = Reply("你好", "嗎？")
        events = stream_taiwanese(reply.stream())
        await anext(events)

        await events.aclose()

        assert reply.is_closed
