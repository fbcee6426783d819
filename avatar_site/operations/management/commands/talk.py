"""Translates `manage.py talk`: stream sound files to a running server as one call."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.backends.db import SessionStore
from django.core.management.base import BaseCommand, CommandError
from websockets.exceptions import InvalidHandshake

from avatar_site.lib.synthetic_label import make_wav
from avatar_site.operations.talk_client import CallFailed, Exchange, UnreadableSound, open_call, read_speech

HTTP_TIMEOUT_S = 10.0


class LoginFailed(Exception):
    """Raised when the login fails."""


class Command(BaseCommand):
    help = (
        "Speak sound files to a running server over the real socket, in real time, one turn each; print what was "
        "understood, what was answered, and how long it took. Without a username a login is made in the database, "
        "which works on the server's own machine."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="sound files, one turn each")
        parser.add_argument("--voice", type=UUID, metavar="ID", help="voice profile to be answered in")
        parser.add_argument("--out", type=Path, metavar="DIR", help="save the spoken replies as WAV in this folder")
        parser.add_argument("--json", action="store_true", help="print one JSON object per turn")
        parser.add_argument("--url", default=default_url(), help="the server (default: %(default)s)")
        parser.add_argument("--username", help="log in with this name (default: AVATAR_ADMIN_USERNAME)")
        parser.add_argument("--password", help="and this password (default: AVATAR_ADMIN_PASSWORD)")

    def handle(self, *args: Any, **options: Any) -> None:
        url = options["url"].rstrip("/")
        username = options["username"] or settings.AVATAR_ADMIN_USERNAME
        password = options["password"] or settings.AVATAR_ADMIN_PASSWORD
        # Its line for every request would stand between the turns.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        exchanges: list[Exchange] = []

        def show(exchange: Exchange) -> None:
            exchanges.append(exchange)
            line = json.dumps(asdict(exchange), ensure_ascii=False) if options["json"] else describe(exchange)
            self.stdout.write(line)
            self.stdout.flush()

        try:
            if options["out"] is not None:
                options["out"].mkdir(parents=True, exist_ok=True)
            speeches = [(path, read_speech(path)) for path in options["files"]]
            with logged_in(url, username, password) as cookie:
                work = talk(
                    url, cookie, speeches, voice=options["voice"], out=options["out"], show=show, tell=self.stderr.write
                )
                asyncio.run(work)
        except UnreadableSound as error:
            raise CommandError(str(error)) from error
        except LoginFailed as error:
            raise CommandError(f"{url}: {error}") from error
        except (CallFailed, OSError, InvalidHandshake, httpx.HTTPError) as error:
            raise CommandError(f"{url}: {error or type(error).__name__}") from error
        failed = [exchange.file for exchange in exchanges if exchange.errors]
        if failed:
            raise CommandError(f"not answered: {', '.join(failed)}")


def default_url() -> str:
    host = settings.AVATAR_HOST
    return f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{settings.AVATAR_PORT}"  # noqa: S104  # compared, not bound


async def talk(
    url: str,
    cookie: str,
    speeches: list[tuple[Path, Any]],
    *,
    voice: UUID | None,
    out: Path | None,
    show: Callable[[Exchange], None],
    tell: Callable[[str], None],
) -> None:
    """Hold one call and speak in it, one turn after the other. `tell` is given what is no result."""

    def tell_place(place: int, count: int) -> None:
        tell(f"All places are taken; waiting as number {place} of {count}.")

    socket_url = f"{re.sub('^http', 'ws', url)}/ws/chat"
    async with open_call(socket_url, headers={"Cookie": cookie}, on_waiting=tell_place) as caller:
        if voice is not None:
            await caller.choose_voice(voice)
        for number, (path, speech) in enumerate(speeches, 1):
            exchange, pcm, rate = await caller.exchange(str(path), speech)
            if out is not None and pcm:
                target = out / f"{number:02}-{path.stem}.wav"
                await asyncio.to_thread(target.write_bytes, make_wav(pcm, rate))
                exchange.saved_as = str(target)
            show(exchange)


def describe(exchange: Exchange) -> str:
    latency = "  ".join(f"{name} {'-' if ms is None else ms}" for name, ms in exchange.latency_ms.items())
    lines = [
        f"{exchange.file} ({exchange.seconds:.1f} s)",
        f"  heard    {exchange.transcript}",
        f"  answered {exchange.reply} ({exchange.reply_seconds:.1f} s)",
        f"  ms       {latency}  gaps {exchange.gap_ms}",
    ]
    lines += [f"  saved    {exchange.saved_as}"] if exchange.saved_as else []
    lines += [f"  error    {error}" for error in exchange.errors]
    return "\n".join(lines)


@contextmanager
def logged_in(url: str, username: str, password: str) -> Iterator[str]:
    """Yield a cookie of a logged-in session: by the login form, or without a password from the database."""
    if password:
        with httpx.Client(base_url=url, timeout=HTTP_TIMEOUT_S, trust_env=False) as client:
            yield log_in(client, username, password)
        return
    session = make_session()
    try:
        yield f"{settings.SESSION_COOKIE_NAME}={session.session_key}"
    finally:
        session.delete()


def log_in(client: httpx.Client, username: str, password: str) -> str:
    """Send the login form. Raises LoginFailed."""
    page = client.get("/accounts/login/")
    field = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
    if page.status_code != httpx.codes.OK or field is None:
        raise LoginFailed(f"there is no login form ({page.status_code})")
    form = {"username": username, "password": password, "csrfmiddlewaretoken": field[1]}
    answer = client.post("/accounts/login/", data=form, headers={"Referer": str(page.url)})
    if answer.is_server_error:
        # 507: the disk is full, and the session found no room.
        raise LoginFailed(f"logging in is not possible now ({answer.status_code})")
    key = client.cookies.get(settings.SESSION_COOKIE_NAME)
    if key is None:
        raise LoginFailed(f"wrong name or password for {username}")
    return f"{settings.SESSION_COOKIE_NAME}={key}"


def make_session() -> SessionStore:
    """Log the first superuser in by writing a session. Raises LoginFailed when there is none."""
    user = get_user_model().objects.filter(is_superuser=True, is_active=True).order_by("pk").first()
    if user is None:
        raise LoginFailed("there is no operator account in this database; give --username and --password")
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.set_expiry(3600)
    session.create()
    return session
