import re
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from django.conf import settings

from tests.avatar_site.web.serving import FLOOD_BYTES, MIB, STRANGERS_BYTES, UPLOAD_BYTES

KNOWN = {"Cookie": "known=yes"}
#: What a process may grow by while it serves: buffers, not bodies.
MOST_GROWTH_BYTES = 30 * MIB


class Served:
    """A server in a process of its own."""

    def __init__(self, *settings_of_server: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "tests.avatar_site.web.serving", *settings_of_server],
            cwd=settings.BASE_DIR,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = int(self.wait_for(r"Listening on TCP address 127.0.0.1:(\d+)").group(1))
        self.url = f"http://127.0.0.1:{self.port}"

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._said:
                self.output += line
                self._said.notify_all()

    def wait_for(self, pattern: str) -> re.Match[str]:
        with self._said:
            if not self._said.wait_for(lambda: re.search(pattern, self.output), 20):
                pytest.fail(f"never said {pattern!r}:\n{self.output}")
            match = re.search(pattern, self.output)
        assert match is not None
        return match

    def connect(self, request: str) -> socket.socket:
        """A connection on which a request, or the beginning of one, was sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sendall(request.replace("\n", "\r\n").encode())
        return connection

    def measure(self, during: Callable[[], Any]) -> tuple[Any, int, int]:
        """What `during` returns; by how much the process grew meanwhile, at most; the most bytes it had in files."""
        process = psutil.Process(self.process.pid)
        before = largest = process.memory_info().rss
        on_disk = 0
        result: list[Any] = []
        doing = threading.Thread(target=lambda: result.append(during()))
        doing.start()
        while doing.is_alive():
            largest = max(largest, process.memory_info().rss)
            on_disk = max(on_disk, measure_open_files(self.process.pid))
            doing.join(0.02)
        return result[0], largest - before, on_disk

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.close()


def read_all(connection: socket.socket) -> str:
    """What comes until the server closes the connection."""
    received = b""
    while data := connection.recv(65536):
        received += data
    return received.decode()


def in_pieces(size: int) -> Iterator[bytes]:
    for _ in range(size // MIB):
        yield bytes(MIB)


class TestABody:
    def test_is_refused_by_its_length_before_it_is_sent(self, served: Served) -> None:
        with served.connect(
            f"POST /elsewhere?q HTTP/1.1\nHost: localhost\nContent-Length: {300 * MIB}\nExpect: 100-continue\n\n"
        ) as connection:
            answer = connection.recv(65536).decode()

        assert answer.startswith("HTTP/1.1 413 ")
        assert "Connection: close" in answer
        assert answer.endswith("too large for /elsewhere")

    def test_in_chunks_is_refused_when_they_become_too_many(self, served: Served) -> None:
        response = httpx.post(f"{served.url}/elsewhere", content=in_pieces(2 * MIB))

        assert (response.status_code, response.text) == (413, "too large for /elsewhere")

    @pytest.mark.parametrize("headers", [{}, {"Content-Length": str(300 * MIB)}], ids=["chunks", "length"])
    def test_that_is_sent_all_the_same_is_kept_nowhere(self, served: Served, headers: dict[str, str]) -> None:
        def send() -> httpx.Response:
            return httpx.post(f"{served.url}/upload", content=in_pieces(300 * MIB), headers=KNOWN | headers, timeout=30)

        response, growth, on_disk = served.measure(send)

        assert response.status_code == 413
        assert growth < MOST_GROWTH_BYTES
        assert on_disk <= UPLOAD_BYTES
        assert measure_open_files(served.process.pid) == 0

    def test_is_read_no_further_after_a_while(self) -> None:
        served = Served("LINGER_S=0.2")
        try:
            with served.connect(f"POST / HTTP/1.1\nHost: localhost\nContent-Length: {300 * MIB}\n\n") as connection:
                answer = connection.recv(65536).decode()
                with pytest.raises(ConnectionResetError):
                    connection.recv(65536)
        finally:
            served.close()

        assert answer.startswith("HTTP/1.1 413 ")
        assert "Traceback" not in served.output

    @pytest.mark.parametrize("headers", [{}, {"Content-Length": str(UPLOAD_BYTES)}], ids=["chunks", "length"])
    def test_is_taken_whole_from_a_person_who_is_known(self, served: Served, headers: dict[str, str]) -> None:
        def send() -> httpx.Response:
            form = {"Content-Type": "multipart/form-data; boundary=part"}
            return httpx.post(f"{served.url}/upload", content=in_pieces(UPLOAD_BYTES), headers=KNOWN | form | headers)

        response, growth, _ = served.measure(send)

        assert (response.status_code, response.text) == (200, str(UPLOAD_BYTES))
        assert growth < UPLOAD_BYTES / 2
        assert measure_open_files(served.process.pid) == 0

    @pytest.mark.parametrize("headers", [{}, {"Content-Length": str(UPLOAD_BYTES)}], ids=["chunks", "length"])
    @pytest.mark.parametrize(("cookie", "status"), [("", 403), ("broken=yes", 503)])
    def test_is_refused_from_a_stranger_unless_it_is_small(
        self, served: Served, headers: dict[str, str], cookie: str, status: int
    ) -> None:
        headers = headers | {"Cookie": cookie}

        large = httpx.post(f"{served.url}/upload", content=in_pieces(UPLOAD_BYTES), headers=headers)
        small = httpx.post(f"{served.url}/upload", content=bytes(STRANGERS_BYTES), headers={"Cookie": cookie})

        assert large.status_code == status
        assert (small.status_code, small.text) == (200, str(STRANGERS_BYTES))

    def test_of_one_request_is_not_that_of_the_next(self, served: Served) -> None:
        with httpx.Client(base_url=served.url, headers=KNOWN) as client:
            sizes = [client.post("/upload", content=bytes(size)).text for size in (3 * MIB, 0, 2 * MIB, 10)]

        assert sizes == [str(3 * MIB), "0", str(2 * MIB), "10"]


class TestAResponse:
    def test_waits_in_bounded_memory_for_a_client_that_reads_nothing(self, served: Served) -> None:
        def wait_and_ask() -> list[str]:
            deadline = time.monotonic() + 3
            answers = []
            while time.monotonic() < deadline:
                answers.append(httpx.post(served.url, content=b"12", timeout=1).text)
                time.sleep(0.1)
            return answers

        with served.connect("GET /flood HTTP/1.1\nHost: localhost\n\n"):
            answers, growth, _ = served.measure(wait_and_ask)

        assert growth < MOST_GROWTH_BYTES
        assert set(answers) == {"2"}

    def test_arrives_whole_when_it_is_read_after_all(self, served: Served) -> None:
        with httpx.Client(base_url=served.url, timeout=30) as client:
            with client.stream("GET", "/flood") as response:
                time.sleep(0.5)
                size = sum(len(piece) for piece in response.iter_raw())
            after = client.post("/", content=b"123")

        assert size == FLOOD_BYTES
        assert after.text == "3"

    def test_ends_when_the_client_leaves(self) -> None:
        served = Served()
        try:
            with served.connect("GET /flood HTTP/1.1\nHost: localhost\n\n") as connection:
                connection.recv(65536)
            served.wait_for("left in the middle")

            assert httpx.get(served.url).text == "0"
        finally:
            served.close()
        assert "Traceback" not in served.output

    def test_is_given_up_when_nothing_is_taken_of_it(self) -> None:
        served = Served("STALL_TIMEOUT_S=0.5")
        try:
            with served.connect("GET /flood HTTP/1.1\nHost: localhost\n\n"):
                served.wait_for("/flood: taken no further")
                served.wait_for("left in the middle")
        finally:
            served.close()

        assert "Traceback" not in served.output


def measure_open_files(pid: int) -> int:
    """How many bytes lie in the regular files that a process has open, those without a name included."""
    total = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        # It may be closed before it is looked at.
        with suppress(FileNotFoundError):
            status = descriptor.stat()
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total
