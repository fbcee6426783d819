"""The logs of a real site: a turn can be followed through its processes, and nothing that people say is in them."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from django.conf import settings
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from avatar_site.operations import processes
from avatar_site.operations.serve_state import read_state
from avatar_site.operations.serving import ServePlan
from tests.backup_site import BackupSite
from tests.otlp import Receiver, receive_traces
from tests.ports import find_free_port
from tests.processes import OutputProcess, tie_to_tests

pytestmark = pytest.mark.timeout(300)

#: Spoken, typed, searched for, and said by the avatar, which repeats what it hears.
WORD = "祕密代號水獺"
TOKEN = "a token of the monitoring"
PASSWORD = "a-password-of-a-test-91"
PATIENCE_S = 40.0
FRAME_BYTES = 640
SERVE = """
import asyncio, sys
from avatar_site.operations.serving import ServePlan, Serving
asyncio.run(Serving(ServePlan.from_json(sys.argv[1])).run())
"""
LOG_IN = f"""
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
user, session = User.objects.create_superuser("alice", password={PASSWORD!r}), SessionStore()
session[SESSION_KEY] = str(user.pk)
session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.create()
print(user.pk, session.session_key)
"""


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)  # of another process: there is no event to wait for


class LoggedSite:
    """All processes under the supervisor, at DEBUG, with scripted engines."""

    def __init__(self, data_dir: Path, receiver_url: str) -> None:
        self.data_dir = data_dir
        self.port = find_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        address = f"unix:{data_dir}/inference.sock"
        self.environment = {
            "AVATAR_INFERENCE_ADDRESS": address,
            "AVATAR_LOG_LEVEL": "DEBUG",
            "AVATAR_BEAUTIFUL_LATER": "yes",
            "AVATAR_ERASE_AFTER_S": "1",
            "AVATAR_METRICS_TOKEN": TOKEN,
            "AVATAR_MAX_EVENT_LOOP_LAG_MS": "10000",
            "AVATAR_FAKE_TRANSCRIPTS": f"{WORD}是什麼意思？",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver_url,
        }
        site = BackupSite(data_dir.parent, **self.environment)
        user_id, self.session_key = site.shell(LOG_IN).split()[-2:]
        self.user_id = user_id
        plan = ServePlan(
            names=processes.NAMES,
            data_dir=str(data_dir),
            profile="fake",
            host="127.0.0.1",
            port=self.port,
            is_behind_proxy=False,
            inference_address=address,
            inference_secret="",
            opening=(),
            admin_username="",
            new_password="",
            is_verbose=False,
            began_s=time.monotonic(),
        )
        self.serve = OutputProcess(
            tie_to_tests([sys.executable, "-c", SERVE, plan.to_json()]),
            environment={**site.environment, "PYTHONPATH": str(settings.BASE_DIR)},
            patience_s=PATIENCE_S,
        )
        self.serve.wait_for("AVATAR is ready")
        wait_until(self.is_each_ready, "the workers did not become ready")

    def is_each_ready(self) -> bool:
        state = read_state(self.data_dir)
        return state is not None and all(child.ready_at is not None for child in state.children)

    @property
    def cookie(self) -> dict[str, str]:
        return {"Cookie": f"sessionid={self.session_key}"}

    def read_lines(self, name: str) -> list[dict[str, Any]]:
        path = self.data_dir / "logs" / f"{name}.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def find_lines(self, name: str, trace_id: str) -> list[dict[str, Any]]:
        return [line for line in self.read_lines(name) if line.get("trace_id") == trace_id]

    def connect(self, path: str) -> ClientConnection:
        return connect(f"ws://127.0.0.1:{self.port}{path}", additional_headers=self.cookie, open_timeout=PATIENCE_S)

    def speak(self) -> tuple[str, str]:
        """Hold a call of a spoken and a typed turn. Return the ids of the session and of the spoken turn."""
        with self.connect(f"/ws/chat?language=zh-hant&q={quote(WORD)}") as call:
            session_id = str(wait_for(call, lambda each: each.get("stage") == "ready")["session_id"])
            tone = (np.sin(np.arange(16_000) * 2 * math.pi * 220 / 16_000) * 9000).astype("<i2").tobytes()
            for pcm in (tone, bytes(32_000)):
                for start in range(0, len(pcm), FRAME_BYTES):
                    call.send(pcm[start : start + FRAME_BYTES])
                    time.sleep(0.02)  # as a microphone does
            turn_id = str(wait_for_reply(call)["user_turn_id"])
            call.send(json.dumps({"type": "text", "text": f"我打字：{WORD}"}))
            wait_for_reply(call)
            call.send(json.dumps({"type": "correct", "turn_id": turn_id, "text": f"改成{WORD}"}))
            wait_for_reply(call)
            # Corrected again, the words of the first correction are deleted. While the database is read they cannot be
            # erased from its files at once, so a task is queued for the maintenance worker.
            with self.reading_the_database():
                call.send(json.dumps({"type": "correct", "turn_id": turn_id, "text": f"再改成{WORD}"}))
                wait_for_reply(call)
                wait_until(
                    lambda: any(
                        "erase_deleted_words: success" in line["event"]
                        for line in self.find_lines("maintenance", turn_id.replace("-", ""))
                    ),
                    "the maintenance worker has no line of the turn",
                )
        return session_id, turn_id

    @contextmanager
    def reading_the_database(self) -> Iterator[None]:
        with closing(sqlite3.connect(self.data_dir / "avatar.sqlite3", isolation_level=None)) as database:
            database.execute("BEGIN")
            database.execute("SELECT count(*) FROM conversations_turn").fetchone()
            yield

    def search(self) -> list[int]:
        """Send the word to every address that takes words, and to some that do not."""
        word = quote(WORD)
        statuses = []
        with httpx.Client(base_url=self.url, headers=self.cookie, timeout=PATIENCE_S) as client:
            for path in (
                f"/api/conversations?q={word}",
                f"/history/?q={word}",
                f"/admin/conversations/conversation/?q={word}",
                f"/admin/monitoring/alert/?q={word}",
                f"/nothing/here?q={word}",
                f"/api/conversations?cursor={word}",
            ):
                statuses.append(client.get(path).status_code)
            statuses.append(client.post(f"/api/conversations?q={word}", content=WORD.encode()).status_code)
        with httpx.Client(base_url=self.url, timeout=PATIENCE_S) as stranger:
            stranger.get("/accounts/login/")
            form = {"username": WORD, "password": PASSWORD, "csrfmiddlewaretoken": stranger.cookies["csrftoken"]}
            statuses.append(stranger.post("/accounts/login/", data=form).status_code)
        return statuses


def wait_for(call: ClientConnection, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    while True:
        message = call.recv(timeout=PATIENCE_S)
        if isinstance(message, str) and holds(found := json.loads(message)):
            return dict(found)


def collapse(content: bytes) -> bytes:
    """Make one of several backslashes: JSON within JSON, and the repr of a row, double those of an escaped word."""
    return re.sub(rb"\\+", rb"\\", content)


def wait_for_reply(call: ClientConnection) -> dict[str, Any]:
    """Return the end of a turn, once its reply has been played as well."""
    end = wait_for(call, lambda each: each["type"] == "turn_end")
    wait_for(call, lambda each: each.get("stage") == "listening")
    return end


@pytest.fixture(scope="module")
def receiver() -> Iterator[tuple[Receiver, str]]:
    with receive_traces() as (url, receiver):
        yield receiver, url


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, prepared_data: Path, receiver: tuple[Receiver, str]
) -> Iterator[LoggedSite]:
    data_dir = tmp_path_factory.mktemp("logged") / "data"
    shutil.copytree(prepared_data, data_dir)
    site = LoggedSite(data_dir, receiver[1])
    yield site
    site.serve.close()


@pytest.fixture(scope="module")
def spoken(site: LoggedSite) -> tuple[str, str]:
    """The ids of a session, and of the turn that was spoken in it."""
    return site.speak()


class TestTurn:
    def test_is_found_by_its_trace_id_in_each_process_that_works_on_it(
        self, site: LoggedSite, spoken: tuple[str, str]
    ) -> None:
        session_id, turn_id = spoken
        trace_id = turn_id.replace("-", "")
        # The worker speaks the answer again, in high quality.
        wait_until(
            lambda: any("render_in_high_quality" in line["event"] for line in site.find_lines("worker", trace_id)),
            "the worker has no line of the turn",
        )

        for name in ("web", "inference", "worker", "maintenance"):
            lines = site.find_lines(name, trace_id)
            assert {line["session_id"] for line in lines} == {session_id}, name
            assert {line["user_id"] for line in lines} == {site.user_id}, name
            assert all(line["turn_id"] for line in lines), name
        assert {line["event"] for line in site.find_lines("inference", trace_id)} >= {
            "generate done",
            "synthesise done",
        }
        over = [line for line in site.find_lines("web", trace_id) if line["event"] == "reply over"]
        assert over
        assert all(line["ttfa_ms"] > 0 and line["audio_ms"] > 0 for line in over)

    def test_has_a_line_of_its_recognition_in_the_session(self, site: LoggedSite, spoken: tuple[str, str]) -> None:
        lines = [line for line in site.read_lines("inference") if line["event"] == "transcribe done"]

        assert [line["session_id"] for line in lines] == [spoken[0]]
        assert lines[0]["speech_ms"] > 500


class TestWordsAndSecrets:
    def test_are_nowhere_but_in_the_history(
        self, site: LoggedSite, spoken: tuple[str, str], receiver: tuple[Receiver, str]
    ) -> None:
        assert site.search() == [200, 200, 200, 200, 404, 200, 403, 200]
        with site.connect(f"/nothing?q={quote(WORD)}") as socket, pytest.raises(ConnectionClosed):
            socket.recv(timeout=PATIENCE_S)
        metrics = httpx.get(f"{site.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=PATIENCE_S)
        assert metrics.status_code == 200
        wait_until(lambda: bool(receiver[0].find("turn")), "no trace has arrived")
        with closing(sqlite3.connect(site.data_dir / "avatar.sqlite3")) as database:
            wait_until(
                lambda: database.execute("SELECT count(*) FROM monitoring_sample").fetchone()[0] > 0,
                "there is no sample",
            )
            tables = ("monitoring_sample", "monitoring_alert", "realtime_livecall", "operations_tombstone")
            rows = [repr(database.execute(f"SELECT * FROM {table}").fetchall()) for table in tables]  # noqa: S608 — names of ours
            kept = database.execute("SELECT count(*) FROM conversations_turn WHERE text LIKE ?", [f"%{WORD}%"])
            assert kept.fetchone()[0] > 3
        places = {path.name: path.read_bytes() for path in (site.data_dir / "logs").iterdir()}
        places |= {"metrics": metrics.content, "rows": "".join(rows).encode(), "output": site.serve.output.encode()}
        places |= {f"traces {number}": body for number, body in enumerate(receiver[0].bodies)}
        assert {"web.log", "inference.log", "worker.log", "maintenance.log", "beat.log"} <= places.keys()

        secrets = {
            WORD,
            WORD.encode("unicode_escape").decode(),
            json.dumps(WORD)[1:-1],
            quote(WORD),
            repr(WORD.encode())[2:-1],
            PASSWORD,
            site.session_key,
            TOKEN,
        }
        found = [
            (name, secret)
            for name, content in places.items()
            for secret in secrets
            if collapse(secret.encode()) in collapse(content)
        ]
        assert found == []


class TestFiles:
    def test_have_json_in_each_line_and_are_ours_alone(self, site: LoggedSite, spoken: tuple[str, str]) -> None:
        folder = site.data_dir / "logs"

        for path in folder.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            for line in path.read_text().splitlines():
                assert {"timestamp", "level", "event", "logger"} <= json.loads(line).keys(), (path.name, line)
                assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", json.loads(line)["timestamp"])

    def test_have_errors_of_all_processes_in_one(self, site: LoggedSite, spoken: tuple[str, str]) -> None:
        state = read_state(site.data_dir)
        assert state is not None
        (beat,) = [child for child in state.children if child.name == "beat"]
        assert beat.pid is not None
        os.kill(beat.pid, 9)

        wait_until(
            lambda: any(line["event"] == "child died" for line in site.read_lines("error")), "the death is not logged"
        )
        (died,) = [line for line in site.read_lines("error") if line["event"] == "child died"]
        assert (died["level"], died["name"], died["code"]) == ("error", "beat", -9)
