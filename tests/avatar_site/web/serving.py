"""The server with a gate and an application that do what tests need: `python -m tests.avatar_site.web.serving`."""

import asyncio
import logging
import sys
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from daphne.access import AccessLogGenerator

from avatar_site.web import server, sockets
from avatar_site.web.limits import Limits
from avatar_site.web.server import Head, Refusal, Server

MIB = 1024 * 1024
PIECE_BYTES = 64 * 1024
FLOOD_BYTES = 200 * MIB
MAX_ANONYMOUS_BYTES = MIB
UPLOAD_BYTES = 20 * MIB


class ScriptedGate:
    """Accepts uploads with the cookie `known`, after a wait."""

    max_anonymous_bytes = MAX_ANONYMOUS_BYTES

    def decide_max_bytes(self, head: Head) -> int:
        return UPLOAD_BYTES if head.path == "/upload" else MAX_ANONYMOUS_BYTES

    async def is_logged_in(self, head: Head) -> bool:
        await asyncio.sleep(0.05)
        if "broken" in head.cookie:
            raise RuntimeError("no database")
        return "known" in head.cookie

    def refuse_anonymous(self, head: Head) -> Refusal:
        return Refusal(HTTPStatus.FORBIDDEN, "text/plain", b"stranger")

    def refuse_size(self, head: Head) -> Refusal:
        return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "text/plain", f"too large for {head.path}".encode())


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await hold_socket(scope["path"], receive, send)
        return
    received = 0
    while True:
        message = await receive()
        received += len(message["body"])
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/flood":
        flooding = asyncio.create_task(flood(send))
        leaving = asyncio.create_task(receive())
        await asyncio.wait([flooding, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not flooding.done():
            flooding.cancel()
            print("left in the middle", flush=True)
        leaving.cancel()
        return
    await send({"type": "http.response.body", "body": str(received).encode()})


async def hold_socket(path: str, receive: Any, send: Any) -> None:
    """Does what the path says; `/echo` answers the length of each message."""
    assert (await receive())["type"] == "websocket.connect"
    if path == "/reject":
        await send({"type": "websocket.close"})
        return
    if path == "/pending":
        await receive()
        return
    await send({"type": "websocket.accept"})
    taking = asyncio.create_task(talk(path, send))
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            print(f"left with {message['code']}", flush=True)
            break
        if path == "/echo":
            await send({"type": "websocket.send", "text": str(len(message.get("text") or message.get("bytes")))})
        else:
            await asyncio.sleep(0.02)
    taking.cancel()
    with suppress(asyncio.CancelledError):
        await taking
    print("no more is said", flush=True)


async def talk(path: str, send: Any) -> None:
    if path == "/close-1012":
        await send({"type": "websocket.close", "code": 1012})
    while path == "/chatter":
        saying = asyncio.ensure_future(send({"type": "websocket.send", "bytes": bytes(PIECE_BYTES)}))
        _, waiting = await asyncio.wait([saying], timeout=0.3)
        if waiting:
            print("waits for its reader", flush=True)
        await saying
        await asyncio.sleep(0)
    if path != "/talk":
        return
    for number in range(FLOOD_BYTES // PIECE_BYTES):
        try:
            async with asyncio.timeout(0.5):
                await send({"type": "websocket.send", "bytes": bytes([number % 256]) * PIECE_BYTES})
        except TimeoutError:
            print(f"waited in send after {number} pieces", flush=True)
            await send({"type": "websocket.close", "code": 4408})
            return
        await asyncio.sleep(0)


async def flood(send: Any) -> None:
    for number in range(FLOOD_BYTES // PIECE_BYTES):
        # Each of its own: the same one would lie in memory once.
        await send({"type": "http.response.body", "body": bytes([number % 256]) * PIECE_BYTES, "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body"})


async def work_in_background() -> None:
    """Says when it begins and when it is told to end."""
    print("background work begins", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print("background work ends", flush=True)


async def drain() -> None:
    print("drained", flush=True)


def serve(settings: list[str]) -> None:
    """Serve with `settings`: fields of `Limits`, constants of its modules, options of daphne's server."""
    limits: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        number = float(value) if "." in value else int(value)
        if name in Limits.__dataclass_fields__:
            limits[name] = number
        elif module := next((module for module in (server, sockets) if hasattr(module, name)), None):
            setattr(module, name, number)
        else:
            options[name] = number
    Server(
        application,
        gate=ScriptedGate(),
        limits=Limits(**limits),
        drain=drain,
        background=work_in_background,
        endpoints=["tcp:port=0:interface=127.0.0.1"],
        action_logger=AccessLogGenerator(sys.stdout),
        **options,
    ).run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
    serve(sys.argv[1:])
