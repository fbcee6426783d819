"""
Generation by an OpenAI-compatible server: a `vllm serve` cluster, llama.cpp's server, or a hosted one.

Closing a reply closes its connection, by which such servers cancel the request.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import Any

import httpx

from inference.config import ConfigurationError, InferenceConfig
from inference.context_window import fit_messages
from inference.engines.base import Engine
from inference.engines.chinese_script import stream_taiwanese
from inference.interfaces import (
    GenerationEvent,
    GenerationFinished,
    GenerationOptions,
    InferenceBusy,
    InferenceError,
    InferenceUnavailable,
    Message,
    TextDelta,
)

CONNECT_TIMEOUT_S = 5.0
#: Longest wait for each piece of a reply, the first included: a busy server queues requests.
READ_TIMEOUT_S = 60.0
#: A Han character is about one token, other text one per three characters. An overestimate is safe: the server refuses
#: prompts that do not fit.
CHARACTERS_PER_TOKEN = 3


def create_llm(*, model: str, config: InferenceConfig) -> OpenAiChat:
    if not config.openai_url:
        raise ConfigurationError("AVATAR_OPENAI_URL: expected the server's address, such as http://127.0.0.1:8000/v1")
    return OpenAiChat(
        config.openai_url,
        model=model or config.openai_model,
        api_key=config.openai_api_key,
        context_tokens=config.context_tokens,
    )


class OpenAiChat(Engine):
    """`LanguageModel` at `url` (up to and including /v1). Without a model name the server's first model is used."""

    def __init__(self, url: str, *, model: str = "", api_key: str = "", context_tokens: int) -> None:
        self.model_name = model
        self.device = "remote"
        self._context_tokens = context_tokens
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None),
        )

    async def warm_up(self) -> None:
        """Check that the server has the model. Raises InferenceError if it has not."""
        with _translated_errors():
            response = await self._client.get("models")
            await _check(response)
            names = [str(model["id"]) for model in response.json()["data"]]
        if not self.model_name and names:
            self.model_name = names[0]
        if self.model_name not in names:
            raise InferenceError(f"the server has no model {self.model_name!r}: it has {', '.join(names) or 'none'}")
        async for _ in self.generate([Message("user", "你好")], GenerationOptions(max_tokens=1)):
            pass

    async def close(self) -> None:
        await self._client.aclose()

    async def generate(
        self, messages: Sequence[Message], options: GenerationOptions
    ) -> AsyncGenerator[GenerationEvent]:
        reply = self._stream(self._fit(messages, options.max_tokens), options)
        async with aclosing(stream_taiwanese(reply)) as events:
            async for event in events:
                yield event

    async def prefill(self, messages: Sequence[Message]) -> None:
        """Generate one token and discard it: the server reads the prompt into its prefix cache, if it has one."""
        if messages:
            fitted = self._fit(messages, GenerationOptions().max_tokens)
            async with aclosing(self._stream(fitted, GenerationOptions(max_tokens=1))) as events:
                async for _ in events:
                    pass

    def _fit(self, messages: Sequence[Message], reply_tokens: int) -> list[Message]:
        return fit_messages(messages, budget_tokens=self._context_tokens - reply_tokens, count_tokens=estimate_tokens)

    async def _stream(self, messages: Sequence[Message], options: GenerationOptions) -> AsyncGenerator[GenerationEvent]:
        request: dict[str, Any] = {
            "model": self.model_name,
            "messages": [{"role": each.role, "content": each.content} for each in join_system_messages(messages)],
            "max_tokens": options.max_tokens,
            "temperature": options.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if options.seed is not None:
            request["seed"] = options.seed
        usage: dict[str, int] = {}
        reason, deltas = "", 0
        with _translated_errors():
            async with self._ask(request) as response:
                await _check(response)
                async for line in response.aiter_lines():
                    if not line.startswith("data:") or line == "data: [DONE]":
                        continue
                    chunk = json.loads(line.removeprefix("data:"))
                    if "error" in chunk:
                        raise InferenceError(f"the server says: {_read_message(chunk)}")
                    usage = chunk.get("usage") or usage
                    for choice in chunk.get("choices", ()):
                        if text := choice.get("delta", {}).get("content"):
                            deltas += 1
                            yield TextDelta(text)
                        reason = choice.get("finish_reason") or reason
        if not reason:
            raise InferenceUnavailable("the server ended the reply without saying why")
        yield GenerationFinished(
            reason="length" if reason == "length" else "stop",
            prompt_tokens=usage.get("prompt_tokens", 0),
            completion_tokens=usage.get("completion_tokens", deltas),
        )

    @asynccontextmanager
    async def _ask(self, body: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        request = self._client.build_request("POST", "chat/completions", json=body)
        try:
            response = await self._client.send(request, stream=True)
        except httpx.RemoteProtocolError:
            # The server closed a pooled connection: retry on a new one.
            response = await self._client.send(request, stream=True)
        async with aclosing(response):
            yield response


def join_system_messages(messages: Sequence[Message]) -> list[Message]:
    """Join all system messages into the first one: some models' templates accept no others."""
    system = "\n".join(message.content for message in messages if message.role == "system")
    others = [message for message in messages if message.role != "system"]
    return [Message("system", system), *others] if system else others


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of a text, rather too high."""
    wide = sum(character >= "\u2e80" for character in text)
    return wide + -(-(len(text) - wide) // CHARACTERS_PER_TOKEN)


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Translate httpx's errors into the border's."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise InferenceUnavailable("the server does not answer in time") from error
    except httpx.TransportError as error:
        raise InferenceUnavailable(f"the server cannot be reached: {error}") from error
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InferenceError("the server's answer is not an OpenAI-compatible one") from error


async def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    await response.aread()
    detail = response.reason_phrase
    with suppress(ValueError):
        detail = _read_message(response.json()) or detail
    said = f"the server says {response.status_code}: {detail}"
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
        raise InferenceBusy(said)
    if response.is_server_error:
        raise InferenceUnavailable(said)
    raise InferenceError(said)


def _read_message(body: Any) -> str:
    """Return the message of an error response; servers differ in where it is."""
    error = body.get("error", body) if isinstance(body, dict) else body
    return str(error.get("message", error) if isinstance(error, dict) else error)[:500]
