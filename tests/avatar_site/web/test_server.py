import time
from collections.abc import Iterator

import httpx
import pytest

from tests.avatar_site.web.served import Served, measure_open_files
from tests.avatar_site.web.serving import FLOOD_BYTES, MAX_ANONYMOUS_BYTES, MIB, UPLOAD_BYTES

KNOWN = {"Cookie": "known=yes"}
#: What a process may grow by while it serves: buffers, not bodies.
MOST_GROWTH_BYTES = 30 * MIB


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.close()


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
        small = httpx.post(f"{served.url}/upload", content=bytes(MAX_ANONYMOUS_BYTES), headers={"Cookie": cookie})

        assert large.status_code == status
        assert (small.status_code, small.text) == (200, str(MAX_ANONYMOUS_BYTES))

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
        served = Served("stall_timeout_s=0.5")
        try:
            with served.connect("GET /flood HTTP/1.1\nHost: localhost\n\n"):
                served.wait_for("/flood: nothing read")
                served.wait_for("left in the middle")
        finally:
            served.close()

        assert "Traceback" not in served.output


class TestBackgroundWork:
    def test_lasts_from_the_start_until_after_the_drain(self) -> None:
        served = Served()
        try:
            served.wait_for("background work begins")
            served.process.terminate()
            code = served.wait_for_end()
        finally:
            served.close()

        assert code == 0
        assert served.output.index("drained") < served.output.index("background work ends")
        assert "Traceback" not in served.output
