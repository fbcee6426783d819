from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from channels.auth import AuthMiddlewareStack
from channels.routing import URLRouter
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, connection
from websockets.asyncio.server import ServerConnection, serve

from avatar_site.operations.management.commands import talk
from avatar_site.operations.talk_client import FRAME_SAMPLES, UnreadableSound, read_speech, trim_end
from conversations.models import Turn
from realtime.routing import websocket_urlpatterns
from realtime.waiting_list import waiting_list
from tests import factories
from tests.fakes import FakeInference, make_inference, make_silence, make_tone

REPLY = "今天的天氣很好，我們出去走一走。"


class SocketServer:
    """The sockets of the product on a port of their own: the ASGI application over a real connection."""

    def __init__(self, inference: FakeInference) -> None:
        self.application = AuthMiddlewareStack(URLRouter(websocket_urlpatterns(inference)))
        self.loop = asyncio.new_event_loop()
        self.stop: asyncio.Event
        self.port: Future[int] = Future()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=[self._serve()])

    async def _serve(self) -> None:
        self.stop = asyncio.Event()
        async with serve(self._answer, "127.0.0.1", 0) as server:
            self.port.set_result(server.sockets[0].getsockname()[1])
            polling = asyncio.create_task(waiting_list.run())
            await self.stop.wait()
            polling.cancel()

    async def _answer(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        path, _, query = connection.request.path.partition("?")
        headers = [(k.lower().encode(), v.encode()) for k, v in connection.request.headers.raw_items()]
        scope = {"type": "websocket", "path": path, "query_string": query.encode(), "headers": headers}
        messages = aiter(connection)
        is_connected = False

        async def receive() -> dict[str, Any]:
            nonlocal is_connected
            if not is_connected:
                is_connected = True
                return {"type": "websocket.connect"}
            async for data in messages:
                return {"type": "websocket.receive", "bytes" if isinstance(data, bytes) else "text": data}
            return {"type": "websocket.disconnect", "code": 1000}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "websocket.send":
                await connection.send(message.get("bytes") or message["text"])
            elif message["type"] == "websocket.close":
                await connection.close(message["code"])

        await self.application(scope, receive, send)


@pytest.fixture
def inference() -> FakeInference:
    return make_inference("今天天氣如何", "謝謝", replies=[REPLY, "不客氣。"], ms_per_character=20)


@pytest.fixture
def server_url(inference: FakeInference) -> Iterator[str]:
    server = SocketServer(inference)
    server.thread.start()
    yield f"http://127.0.0.1:{server.port.result(5)}"
    server.loop.call_soon_threadsafe(server.stop.set)
    server.thread.join(10)
    server.loop.close()


@pytest.fixture
def operator(transactional_db: None) -> User:
    return User.objects.create_superuser("admin", password=factories.PASSWORD)


@pytest.fixture
def speech_path(tmp_path: Path) -> Path:
    """0.6 s of speech at 44.1 kHz in stereo, and half a second of silence."""
    tone = np.frombuffer(make_tone(600, sample_rate_hz=44_100) + make_silence(500, sample_rate_hz=44_100), "<i2")
    path = tmp_path / "speech.wav"
    soundfile.write(path, np.stack([tone, tone], axis=1), 44_100)
    return path


class TestTalk:
    def test_speaks_each_file_and_tells_what_was_answered(
        self, operator: User, server_url: str, speech_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        call_command(
            "talk", str(speech_path), str(speech_path), "--url", server_url, "--json", "--out", str(tmp_path / "out")
        )

        first, second = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert (first["transcript"], first["reply"]) == ("今天天氣如何", REPLY)
        assert (second["transcript"], second["reply"]) == ("謝謝", "不客氣。")
        assert 0.55 <= first["seconds"] <= 0.65
        latency = first["latency_ms"]
        assert 600 <= latency["stt"] <= latency["ttft"] <= latency["ttfa"] <= latency["total"] < 10_000
        assert abs(first["server_latency_ms"]["stt"] - latency["stt"]) < 500
        replies = sorted((tmp_path / "out").iterdir())
        assert [path.name for path in replies] == ["01-speech.wav", "02-speech.wav"]
        assert first["saved_as"] == str(replies[0])
        assert b"Synthetic speech" in replies[0].read_bytes()
        assert soundfile.info(replies[0]).duration == pytest.approx(first["reply_seconds"], abs=0.01)
        # Turns are saved off the live path: the last one may be on its way yet.
        deadline = time.monotonic() + 10
        finished = Turn.objects.filter(conversation__owner=operator, is_in_progress=False)
        while finished.count() < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert Turn.objects.filter(conversation__owner=operator).count() == 4
        assert not Turn.objects.filter(was_interrupted=True).exists()

    def test_waits_for_a_place_and_says_so(
        self,
        operator: User,
        server_url: str,
        speech_path: Path,
        settings: Any,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        settings.AVATAR_MAX_SESSIONS = 1
        taken = factories.create_live_call(operator)
        told = io.StringIO()

        def free_place() -> None:
            deadline = time.monotonic() + 10
            while not told.getvalue() and time.monotonic() < deadline:
                time.sleep(0.01)
            taken.delete()
            connection.close()

        freeing = threading.Thread(target=free_place)
        freeing.start()
        call_command("talk", str(speech_path), "--url", server_url, "--json", stderr=told)
        freeing.join()

        assert json.loads(capsys.readouterr().out)["reply"] == REPLY
        assert told.getvalue() == "All places are taken; waiting as number 1 of 1.\n"

    def test_says_when_it_was_not_answered(
        self, operator: User, server_url: str, speech_path: Path, inference: FakeInference
    ) -> None:
        inference.stt.start_outage()

        with pytest.raises(CommandError, match="not answered"):
            call_command("talk", str(speech_path), "--url", server_url)

    def test_needs_an_operator_or_a_password(self, transactional_db: None, server_url: str, speech_path: Path) -> None:
        with pytest.raises(CommandError, match="no operator account"):
            call_command("talk", str(speech_path), "--url", server_url)

    def test_says_when_there_is_no_server(self, operator: User, speech_path: Path) -> None:
        with pytest.raises(CommandError, match=r"127\.0\.0\.1:9"):
            call_command("talk", str(speech_path), "--url", "http://127.0.0.1:9")

    def test_says_when_a_file_is_no_sound(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("hello")

        with pytest.raises(CommandError, match=r"notes\.txt"):
            call_command("talk", str(path))


@pytest.mark.django_db
class TestLoggingIn:
    @pytest.fixture
    def client(self) -> Iterator[httpx.Client]:
        # As Django's own test client does: a request must not close the connection that the test's transaction is on.
        for signal in (request_started, request_finished):
            signal.disconnect(close_old_connections)
        transport = httpx.WSGITransport(app=get_wsgi_application())
        with httpx.Client(base_url="http://localhost", transport=transport) as client:
            yield client
        for signal in (request_started, request_finished):
            signal.connect(close_old_connections)

    def test_fills_in_the_form(self, client: httpx.Client, alice: User) -> None:
        assert talk.log_in(client, alice.username, factories.PASSWORD).startswith("sessionid=")

    def test_with_a_wrong_password_fails(self, client: httpx.Client, alice: User) -> None:
        with pytest.raises(talk.LoginFailed, match="wrong name or password"):
            talk.log_in(client, alice.username, "wrong")

    def test_blames_no_password_when_the_server_fails(self) -> None:
        def answer(request: httpx.Request) -> httpx.Response:
            form = '<input name="csrfmiddlewaretoken" value="token">'
            return httpx.Response(200, text=form) if request.method == "GET" else httpx.Response(507)

        client = httpx.Client(base_url="http://avatar.test", transport=httpx.MockTransport(answer))
        with client, pytest.raises(talk.LoginFailed, match="507"):
            talk.log_in(client, "alice", "right")


class TestReading:
    def test_resamples_to_one_channel_and_drops_the_silence_at_the_end(self, speech_path: Path) -> None:
        speech = read_speech(speech_path)

        assert len(speech) % FRAME_SAMPLES == 0
        assert len(speech) / 16_000 == pytest.approx(0.6, abs=0.03)
        assert np.abs(speech[-FRAME_SAMPLES:]).max() > 1000

    def test_keeps_silence_inside(self) -> None:
        samples = np.frombuffer(make_tone(100) + make_silence(300) + make_tone(100) + make_silence(200), "<i2")

        assert len(trim_end(samples)) == 16_000 * 500 // 1000

    def test_of_silence_fails(self, tmp_path: Path) -> None:
        path = tmp_path / "silence.wav"
        soundfile.write(path, np.zeros(16_000), 16_000)

        with pytest.raises(UnreadableSound):
            read_speech(path)
