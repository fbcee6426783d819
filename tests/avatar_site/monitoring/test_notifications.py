"""E-mail and webhook, with a real mail server and a real receiver."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from pytest_django import Settings

from avatar_site.monitoring import notifications
from avatar_site.monitoring.models import Alert, AlertState, Severity
from tests.ports import find_free_port

NOW = dt.datetime(2026, 11, 27, 4, 0, 12, tzinfo=dt.UTC)

pytestmark = pytest.mark.django_db


class Mailbox:
    """Takes what is sent, or answers with `refusal`."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.refusal = ""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.refusal:
            return self.refusal
        self.envelopes.append(envelope)
        return "250 OK"

    @property
    def messages(self) -> list[EmailMessage]:
        contents = [envelope.content for envelope in self.envelopes]
        return [
            message_from_bytes(content, policy=policy.default) for content in contents if isinstance(content, bytes)
        ]


@pytest.fixture
def mailbox(settings: Settings) -> Iterator[Mailbox]:
    mailbox = Mailbox()
    server = Controller(mailbox, hostname="127.0.0.1", port=find_free_port())
    server.start()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
    settings.AVATAR_ALERT_EMAILS = ["operator@example.tw", "chief@example.tw"]
    yield mailbox
    server.stop()


class Receiver:
    """Takes what a webhook sends, and answers with `status`."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes]] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((self.headers.get("X-Avatar-Signature", ""), body))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", find_free_port()), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks/s3cret-path"
        self._thread = Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.requests]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def receiver(settings: Settings) -> Iterator[Receiver]:
    receiver = Receiver()
    settings.AVATAR_ALERT_WEBHOOK_URL = receiver.url
    yield receiver
    receiver.close()


class Dripper:
    """A receiver that never stalls and never ends: it sends a few bytes of its answer every 20 ms, for seconds."""

    PIECES = 400

    def __init__(self, opening: bytes, piece: bytes) -> None:
        self._opening, self._piece = opening, piece
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/hook"
        self._closed = Event()
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, suppress(OSError):
            connection.sendall(self._opening)
            for _ in range(self.PIECES):
                if self._closed.wait(0.02):
                    return
                connection.sendall(self._piece)
            connection.sendall(b"\r\n\r\n")

    def close(self) -> None:
        self._closed.set()
        self._listener.close()
        self._thread.join(10)


def open_alert(condition: str = "disk_space", **fields: Any) -> Alert:
    fields = {"subject": "data", "severity": Severity.WARNING, "opened_at": NOW, "last_seen_at": NOW} | fields
    return Alert.objects.create(
        condition=condition, figures={"free_bytes": 9 * 2**30, "limit_bytes": 10 * 2**30}, **fields
    )


def resolve(alert: Alert) -> None:
    Alert.objects.filter(pk=alert.pk).update(state=AlertState.RESOLVED, resolved_at=NOW)


def send(minutes: int = 0) -> None:
    notifications.send_pending(now=NOW + dt.timedelta(minutes=minutes))


class TestEmail:
    def test_tells_of_an_alert_once_and_of_its_end_once(self, settings: Settings, mailbox: Mailbox) -> None:
        settings.LANGUAGE_CODE = "en"
        alert = open_alert()

        send()
        send(1)
        resolve(alert)
        send(2)
        send(3)

        opened, resolved = mailbox.messages
        assert mailbox.envelopes[0].rcpt_tos == ["operator@example.tw", "chief@example.tw"]
        assert opened["subject"] == "AVATAR: The disk is almost full"
        assert "9.0\xa0GB are free on the disk of the data folder" in opened.get_content()
        assert "since 2026-11-27 12:00" in opened.get_content()
        assert resolved["subject"] == "AVATAR: resolved: The disk is almost full"
        assert Alert.objects.get().notified_at == NOW + dt.timedelta(minutes=2)

    def test_puts_the_news_of_a_minute_into_one_message(self, settings: Settings, mailbox: Mailbox) -> None:
        settings.LANGUAGE_CODE = "en"
        resolved = open_alert("log_folder")
        send()
        resolve(resolved)
        open_alert("memory")
        open_alert("latency")

        send(1)

        assert mailbox.messages[1]["subject"] == "AVATAR: 2 alerts, 1 resolved"
        assert len(mailbox.messages[1].get_content().strip().splitlines()) == 3

    def test_speaks_the_language_of_the_site(self, mailbox: Mailbox) -> None:
        open_alert()

        send()

        assert mailbox.messages[0]["subject"] == "AVATAR: 磁碟快滿了"
        assert "資料夾所在的磁碟" in mailbox.messages[0].get_content()

    def test_is_tried_again_while_the_server_refuses(self, mailbox: Mailbox, caplog: pytest.LogCaptureFixture) -> None:
        open_alert()
        mailbox.refusal = "451 try again later"

        send()
        mailbox.refusal = ""
        send(1)

        assert len(mailbox.messages) == 1
        assert "alerts could not be told by email, and are tried again: 451" in caplog.text

    def test_is_tried_again_when_there_is_no_server(
        self, settings: Settings, mailbox: Mailbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        open_alert()
        port, settings.EMAIL_PORT = settings.EMAIL_PORT, find_free_port()

        send()
        settings.EMAIL_PORT = port
        send(1)

        assert len(mailbox.messages) == 1
        assert "could not be told by email" in caplog.text

    def test_tells_again_when_a_warning_becomes_an_error(self, mailbox: Mailbox) -> None:
        alert = open_alert()
        send()
        Alert.objects.filter(pk=alert.pk).update(severity=Severity.ERROR)

        send(1)

        assert len(mailbox.messages) == 2

    def test_says_nothing_of_what_came_and_went_untold(self, mailbox: Mailbox) -> None:
        resolve(open_alert())

        send()

        assert mailbox.messages == []


class TestWebhook:
    def test_receives_alerts_as_json_with_a_signature(self, settings: Settings, receiver: Receiver) -> None:
        settings.AVATAR_ALERT_WEBHOOK_SECRET = "known to both"
        settings.LANGUAGE_CODE = "en"
        alert = open_alert()

        send()

        (signature, body) = receiver.requests[0]
        assert signature == f"sha256={hmac.new(b'known to both', body, hashlib.sha256).hexdigest()}"
        (told,) = receiver.bodies[0]["alerts"]
        assert receiver.bodies[0]["text"].startswith("AVATAR: The disk is almost full\n")
        assert told["id"] == alert.pk
        assert (told["condition"], told["subject"], told["severity"], told["state"]) == (
            "disk_space",
            "data",
            "warning",
            "open",
        )
        assert (told["opened_at"], told["resolved_at"]) == ("2026-11-27T04:00:12+00:00", None)

    @pytest.mark.parametrize("status", [302, 404, 500])
    def test_is_tried_again_until_it_is_taken(self, receiver: Receiver, status: int) -> None:
        open_alert()
        receiver.status = status

        send()
        receiver.status = 204
        send(1)
        send(2)

        assert len(receiver.requests) == 2

    @pytest.mark.parametrize(
        ("opening", "piece"),
        [(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), (b"", b"H"), (b"HTTP/1.1 200 OK\r\nX: ", b"y")],
        ids=["headers", "status", "header"],
    )
    def test_has_a_deadline_for_the_whole_answer(
        self,
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        opening: bytes,
        piece: bytes,
    ) -> None:
        monkeypatch.setattr(notifications, "TIMEOUT_S", 0.5)
        dripper = Dripper(opening, piece)
        settings.AVATAR_ALERT_WEBHOOK_URL = dripper.url
        open_alert()
        began_s = time.monotonic()

        send()
        took_s = time.monotonic() - began_s
        dripper.close()

        assert "could not be told by webhook, and are tried again: no answer within 0.5 s" in caplog.text
        assert 0.5 <= took_s < 4

    def test_does_not_wait_for_a_body_without_an_end(self, settings: Settings) -> None:
        dripper = Dripper(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b"y")
        settings.AVATAR_ALERT_WEBHOOK_URL = dripper.url
        open_alert()

        send()
        dripper.close()

        assert Alert.objects.get().told == {"webhook": "warning"}

    def test_of_an_address_that_is_none_ends_nothing(
        self, settings: Settings, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings.AVATAR_ALERT_WEBHOOK_URL = "http://[::1/s3cret-path"
        open_alert()

        send()

        assert "could not be told by webhook" in caplog.text
        assert "s3cret-path" not in caplog.text

    def test_leaves_its_address_out_of_the_log(
        self, settings: Settings, receiver: Receiver, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        open_alert()

        send()
        settings.AVATAR_ALERT_WEBHOOK_URL = f"http://127.0.0.1:{find_free_port()}/hooks/s3cret-path"
        open_alert("memory")
        send(1)

        assert "could not be told by webhook" in caplog.text
        assert "s3cret-path" not in caplog.text


class TestChannels:
    def test_do_not_wait_for_each_other(self, mailbox: Mailbox, receiver: Receiver) -> None:
        open_alert()
        mailbox.refusal = "554 no"

        send()
        mailbox.refusal = ""
        send(1)

        assert (len(receiver.requests), len(mailbox.messages)) == (1, 1)

    def test_are_none_by_default(self) -> None:
        open_alert()

        send()

        assert Alert.objects.get().notified_at is None

    def test_give_up_on_an_end_that_is_a_day_old(self, mailbox: Mailbox) -> None:
        alert = open_alert()
        send()
        resolve(alert)

        send(minutes=25 * 60)

        assert len(mailbox.messages) == 1
