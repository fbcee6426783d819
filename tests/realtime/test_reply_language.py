from __future__ import annotations

from inference.engines.fake import FakeLanguageModel
from inference.interfaces import GenerationOptions, Message, TextDelta
from realtime.call.prompt import Language
from realtime.reply_language import generate_in

QUESTION = Message("user", "晚餐吃什麼？")


async def read(llm: FakeLanguageModel, language: Language | None) -> str:
    events = generate_in(language, llm, [QUESTION], GenerationOptions())
    return "".join([event.text async for event in events if isinstance(event, TextDelta)])


class TestGenerateIn:
    async def test_begins_again_in_the_wanted_language(self) -> None:
        llm = FakeLanguageModel(["Good morning, Jim. How are you?", "吃火鍋吧。"])

        said = await read(llm, "zh")

        assert said == "吃火鍋吧。"
        assert [request[-1].content for request in llm.requests] == [
            "晚餐吃什麼？",
            "晚餐吃什麼？\n（請用中文回答。）",
        ]

    async def test_begins_again_once_only(self) -> None:
        llm = FakeLanguageModel(["Good morning, Jim.", "Still English, Jim.", "吃火鍋吧。"])

        assert await read(llm, "zh") == "Still English, Jim."

    async def test_lets_the_right_language_through(self) -> None:
        llm = FakeLanguageModel(["吃火鍋吧。", "不會說到。"])

        assert await read(llm, "zh") == "吃火鍋吧。"
        assert len(llm.requests) == 1

    async def test_lets_anything_through_where_either_is_right(self) -> None:
        llm = FakeLanguageModel(["Good morning, Jim."])

        assert await read(llm, None) == "Good morning, Jim."

    async def test_says_what_is_over_before_it_was_clear(self) -> None:
        llm = FakeLanguageModel(["OK"])

        assert await read(llm, "zh") == "OK"
        assert len(llm.requests) == 1

    async def test_closes_the_engine_when_it_is_closed(self) -> None:
        llm = FakeLanguageModel(["吃火鍋吧，今天很冷，一起去。"])
        events = generate_in("zh", llm, [QUESTION], GenerationOptions())
        await anext(events)

        await events.aclose()

        assert llm.calls.active == 0
