from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.db import database_sync_to_async
from django.contrib.auth.models import User
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.test import Client

from avatar_site.asgi import django_application


async def request_page(path: str, cookie: bytes) -> int:
    """Ask as a server does, and return the status once the application is through with the request."""
    sent: list[dict[str, Any]] = []
    is_asked = False

    async def receive() -> dict[str, Any]:
        nonlocal is_asked
        if is_asked:
            await asyncio.Event().wait()
        is_asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"cookie", cookie)]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers}
    await django_application(scope, receive, send)
    return int(sent[0]["status"])


@pytest.mark.django_db(transaction=True)
class TestConnections:
    async def test_of_a_request_end_with_its_thread_and_those_of_calls_are_kept(
        self, alice: User, alices_client: Client
    ) -> None:
        opened: list[BaseDatabaseWrapper] = []

        def note(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
            opened.append(connection)

        cookie = alices_client.cookies.output(header="", sep=";").strip().encode()
        connection_created.connect(note)
        try:
            for _ in range(3):
                assert await request_page("/history/", cookie) == 200
            of_requests, opened = opened, []
            for _ in range(3):
                await database_sync_to_async(User.objects.count)()
        finally:
            connection_created.disconnect(note)

        assert len(of_requests) == 3
        assert [connection.connection for connection in of_requests] == [None] * 3
        # By a test before it, or by the first of the three.
        assert len(opened) <= 1
        for connection in opened:
            await sync_to_async(connection.close)()
