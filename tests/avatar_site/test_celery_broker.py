from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import Empty

import pytest
from kombu.connection import Connection
from kombu.simple import SimpleQueue

from avatar_site.celery_broker import Transport, install_transport

#: A process that may write no more than so many bytes to a file: what a full disk does to one.
_PUT_BEYOND_THE_LIMIT = """
import json, os, resource, signal, sys
from kombu.connection import Connection
os.environ["DJANGO_SETTINGS_MODULE"] = "avatar_site.settings.test"
from avatar_site.celery_broker import install_transport
install_transport()
connection = Connection("filesystem://", transport_options=json.loads(sys.argv[1]))
queue = connection.SimpleQueue("work")
queue.put({"n": 1})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    queue.put({"n": 2, "long": "x" * 1000})
except Exception as error:
    print(error)
"""


@pytest.fixture
def options(tmp_path: Path) -> dict[str, object]:
    for name in ("messages", "control"):
        (tmp_path / name).mkdir()
    return {
        "data_folder_in": str(tmp_path / "messages"),
        "data_folder_out": str(tmp_path / "messages"),
        "control_folder": str(tmp_path / "control"),
        "store_processed": False,
    }


@pytest.fixture
def connection(options: dict[str, object]) -> Iterator[Connection]:
    install_transport()
    forget_declarations()
    with Connection("filesystem://", transport_options=options) as connection:
        yield connection


def forget_declarations() -> None:
    """Be as a process that has just started: Kombu remembers for the process what it has declared and bound."""
    Transport.global_state.clear()


def take(queue: SimpleQueue) -> object:
    message = queue.get(block=False)
    message.ack()
    return message.payload


class TestMessages:
    def test_come_in_order(self, connection: Connection) -> None:
        queue = connection.SimpleQueue("work")

        queue.put({"n": 1})
        queue.put({"n": 2})

        assert [take(queue), take(queue)] == [{"n": 1}, {"n": 2}]
        with pytest.raises(Empty):
            queue.get(block=False)

    def test_that_were_cut_off_are_skipped(self, connection: Connection, tmp_path: Path) -> None:
        queue = connection.SimpleQueue("work")
        (tmp_path / "messages" / "00000_a.work.msg").write_bytes(b"")
        (tmp_path / "messages" / "00000_b.work.msg").write_bytes(b'{"body": "abc')
        (tmp_path / "messages" / "00000_c.work.msg").write_bytes(b"\xff\xfe")
        queue.put({"n": 1})

        assert take(queue) == {"n": 1}
        assert list((tmp_path / "messages").iterdir()) == []

    def test_that_find_no_room_leave_nothing(self, options: dict[str, object], tmp_path: Path) -> None:
        said = subprocess.run(
            [sys.executable, "-c", _PUT_BEYOND_THE_LIMIT, json.dumps(options)],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        )

        assert said.stdout.startswith("cannot write a message"), said.stderr
        assert [path.name.split(".", 1)[1] for path in (tmp_path / "messages").iterdir()] == ["work.msg"]


class TestTableOfQueues:
    @pytest.mark.parametrize("left", [b"", b'[["work", "", "wo'])
    def test_that_was_cut_off_is_written_again(self, connection: Connection, tmp_path: Path, left: bytes) -> None:
        connection.SimpleQueue("work").close()
        (table,) = (tmp_path / "control").iterdir()
        table.write_bytes(left)
        forget_declarations()

        queue = connection.SimpleQueue("work")
        queue.put({"n": 1})

        assert take(queue) == {"n": 1}
