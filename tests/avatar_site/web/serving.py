"""The server with a gate and an application that do what tests need: `python -m tests.avatar_site.web.serving`."""

import asyncio
import logging
import sys
from http import HTTPStatus
from typing import Any

from avatar_site.web import server
from avatar_site.web.server import Head, Refusal, Server

MIB = 1024 * 1024
PIECE_BYTES = 64 * 1024
FLOOD_BYTES = 200 * MIB
STRANGERS_BYTES = MIB
UPLOAD_BYTES = 20 * MIB


class ScriptedGate:
    """Takes uploads from whoever carries the cookie `known`, and must think about it."""

    most_bytes_of_strangers = STRANGERS_BYTES

    def find_most_bytes(self, head: Head) -> int:
        return UPLOAD_BYTES if head.path == "/upload" else STRANGERS_BYTES

    async def knows(self, head: Head) -> bool:
        await asyncio.sleep(0.05)
        if "broken" in head.cookie:
            raise RuntimeError("no database")
        return "known" in head.cookie

    def refuse_stranger(self, head: Head) -> Refusal:
        return Refusal(HTTPStatus.FORBIDDEN, "text/plain", b"stranger")

    def refuse_size(self, head: Head) -> Refusal:
        return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "text/plain", f"too large for {head.path}".encode())


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
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


async def flood(send: Any) -> None:
    for number in range(FLOOD_BYTES // PIECE_BYTES):
        # Each of its own: the same one would lie in memory once.
        await send({"type": "http.response.body", "body": bytes([number % 256]) * PIECE_BYTES, "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body"})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
    for setting in sys.argv[1:]:
        name, _, value = setting.partition("=")
        setattr(server, name, float(value))
    Server(application, gate=ScriptedGate(), endpoints=["tcp:port=0:interface=127.0.0.1"]).run()
