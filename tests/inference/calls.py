"""Calls of every role, through the client, and audio that never ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inference.client import InferenceClient, make_metadata
from inference.interfaces import (
    GenerationOptions,
    Message,
    SynthesisOptions,
    TextDelta,
    TranscriptionInput,
    TranscriptionOptions,
)
from tests.inference.conftest import SECRET

HELLO = (Message("user", "hello"),)
SPEECH = b"\x00\x20" * 16_000
HUM = b"\x00\x20\x00\xe0" * 16_000
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def generate(client: InferenceClient, **options: Any) -> str:
    events = client.llm.generate(HELLO, GenerationOptions(**options))
    return "".join([event.text async for event in events if isinstance(event, TextDelta)])


async def synthesise(client: InferenceClient) -> bytes:
    return b"".join([chunk.pcm async for chunk in client.tts.synthesise("你好", SynthesisOptions())])


async def transcribe(client: InferenceClient, *items: TranscriptionInput) -> list[Any]:
    async def audio() -> AsyncIterator[TranscriptionInput]:
        for item in items:
            yield item

    return [event async for event in client.stt.transcribe(audio(), TranscriptionOptions())]


async def read_to_the_end(stream: AsyncIterator[Any]) -> None:
    async for _ in stream:
        pass


async def endless_silence() -> AsyncIterator[TranscriptionInput]:
    while True:
        yield bytes(640)
        await asyncio.sleep(0.01)


async def endless_speech() -> AsyncIterator[TranscriptionInput]:
    while True:
        yield b"\x00\x20" * 320
        await asyncio.sleep(0.01)


async def health(port: int, service: str) -> int:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        reply = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service), metadata=make_metadata(SECRET)
        )
    return int(reply.status)
