from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from inference.config import ConfigurationError, InferenceConfig
from inference.engines.openai_chat import OpenAiChat, create_llm, estimate_tokens, join_system_messages
from inference.interfaces import (
    GenerationFinished,
    GenerationOptions,
    InferenceBusy,
    InferenceError,
    InferenceUnavailable,
    Message,
    TextDelta,
)

HELLO = (Message("user", "你好"),)


def events(*chunks: object) -> bytes:
    lines = [f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n" for chunk in chunks]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()


def delta(text: str = "", reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text} if text else {}, "finish_reason": reason}]}


class ScriptedServer:
    """Answers HTTP with what it is told to, one request a connection, and knows what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self.asked: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.is_held = False
        self.drops_next = False
        self.has_gone = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.headers.append(head)
        length = next(
            (int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-l")), 0
        )
        body = await reader.readexactly(length)
        if body:
            self.asked.append(json.loads(body))
        if self.drops_next:
            self.drops_next = False
            writer.close()
            return
        status, answer = self.answers.pop(0)
        writer.write(f"HTTP/1.1 {status} Said\r\nConnection: close\r\n\r\n".encode() + answer)
        await writer.drain()
        if self.is_held:
            await reader.read()
            self.has_gone.set()
        writer.close()


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    return ScriptedServer()


@pytest.fixture
async def make_llm(server: ScriptedServer) -> AsyncIterator[Callable[..., OpenAiChat]]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    made: list[OpenAiChat] = []

    def make(**options: Any) -> OpenAiChat:
        made.append(OpenAiChat(address, **{"model": "m", "context_tokens": 200, **options}))
        return made[-1]

    yield make
    for llm in made:
        await llm.close()
    listener.close()


@pytest.fixture
def llm(make_llm: Callable[..., OpenAiChat]) -> OpenAiChat:
    return make_llm()


async def ask(llm: OpenAiChat, *messages: Message) -> list[Any]:
    return [event async for event in llm.generate(messages or HELLO, GenerationOptions(max_tokens=20, seed=7))]


class TestJoinSystemMessages:
    def test_puts_them_first_where_every_template_takes_them(self) -> None:
        hi, noon = Message("user", "hi"), Message("system", "It is noon.")

        joined = join_system_messages([Message("system", "Be brief."), hi, noon])

        assert joined == [Message("system", "Be brief.\nIt is noon."), hi]

    def test_makes_none_of_none(self) -> None:
        assert join_system_messages([Message("user", "hi")]) == [Message("user", "hi")]


class TestGenerate:
    async def test_streams_in_traditional_characters(self, llm: OpenAiChat, server: ScriptedServer) -> None:
        usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}
        server.answers.append(
            (200, b": a comment\n\n" + events(delta("这是软"), delta("件。"), delta("", "stop"), usage))
        )

        *deltas, finished = await ask(llm)

        assert "".join(event.text for event in deltas) == "這是軟體。"
        assert finished == GenerationFinished("stop", prompt_tokens=9, completion_tokens=4)
        asked = server.asked[0]
        assert (asked["model"], asked["max_tokens"], asked["seed"], asked["stream"]) == ("m", 20, 7, True)
        assert asked["messages"] == [{"role": "user", "content": "你好"}]

    async def test_counts_what_a_server_without_usage_sent(self, llm: OpenAiChat, server: ScriptedServer) -> None:
        server.answers.append((200, events(delta("a"), delta("b"), delta("", "length"))))

        assert (await ask(llm))[-1] == GenerationFinished("length", prompt_tokens=0, completion_tokens=2)

    async def test_leaves_out_what_does_not_fit(self, llm: OpenAiChat, server: ScriptedServer) -> None:
        server.answers.append((200, events(delta("好", "stop"))))

        await ask(llm, *(Message("user" if n % 2 == 0 else "assistant", "字" * 50) for n in range(9)))

        assert 1 <= len(server.asked[0]["messages"]) <= 3

    async def test_closes_the_connection_when_its_caller_leaves(self, llm: OpenAiChat, server: ScriptedServer) -> None:
        server.answers.append((200, events(delta("一"), delta("二")).removesuffix(b"data: [DONE]\n\n")))
        server.is_held = True

        stream: Any = llm.generate(HELLO, GenerationOptions())
        assert await anext(stream) == TextDelta("一")
        await stream.aclose()

        await asyncio.wait_for(server.has_gone.wait(), 5)

    async def test_asks_again_when_a_kept_connection_was_given_up(
        self, llm: OpenAiChat, server: ScriptedServer
    ) -> None:
        server.drops_next = True
        server.answers.append((200, events(delta("好", "stop"))))

        assert (await ask(llm))[0] == TextDelta("好")

    @pytest.mark.parametrize(
        ("status", "answer", "kind", "said"),
        [
            (429, b'{"error": {"message": "too many"}}', InferenceBusy, "429: too many"),
            (500, b'{"error": "out of order"}', InferenceUnavailable, "out of order"),
            (503, b"<html>", InferenceUnavailable, "503"),
            (400, b'{"object": "error", "message": "too long"}', InferenceError, "too long"),
            (401, b'{"error": {"message": "no key"}}', InferenceError, "no key"),
            (200, b"data: {nonsense\n\n", InferenceError, "not an OpenAI-compatible"),
            (200, b"data: []\n\n", InferenceError, "not an OpenAI-compatible"),
            (200, events({"error": {"message": "broke off"}}), InferenceError, "broke off"),
            (200, events(delta("half")), InferenceUnavailable, "without saying why"),
        ],
    )
    async def test_says_what_went_wrong(
        self, llm: OpenAiChat, server: ScriptedServer, status: int, answer: bytes, kind: type[Exception], said: str
    ) -> None:
        server.answers.append((status, answer))

        with pytest.raises(InferenceError, match=said) as caught:
            await ask(llm)
        assert type(caught.value) is kind

    async def test_says_that_nobody_is_there(self) -> None:
        llm = OpenAiChat("http://127.0.0.1:9/v1", model="m", context_tokens=200)

        with pytest.raises(InferenceUnavailable, match="cannot be reached"):
            await ask(llm)
        await llm.close()


class TestWarmUp:
    async def test_takes_the_first_model_there_is(
        self, make_llm: Callable[..., OpenAiChat], server: ScriptedServer
    ) -> None:
        llm = make_llm(model="", api_key="sesame")
        server.answers += [(200, b'{"data": [{"id": "a"}, {"id": "b"}]}'), (200, events(delta("好", "stop")))]

        await llm.warm_up()

        assert llm.model_name == "a"
        assert all("Bearer sesame" in head for head in server.headers)

    async def test_refuses_a_model_that_is_not_there(self, llm: OpenAiChat, server: ScriptedServer) -> None:
        server.answers.append((200, b'{"data": [{"id": "a"}]}'))

        with pytest.raises(InferenceError, match="no model 'm': it has a"):
            await llm.warm_up()

    def test_needs_an_address(self) -> None:
        with pytest.raises(ConfigurationError, match="AVATAR_OPENAI_URL"):
            create_llm(model="", config=InferenceConfig())


def test_estimate_tokens_guesses_rather_too_many() -> None:
    assert estimate_tokens("") == 0
    assert estimate_tokens("今天天氣") == 4
    assert estimate_tokens("weather") == 3
    assert estimate_tokens("今天 5 度") == 4
