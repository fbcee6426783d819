import socket

from tests.ports import find_free_port


class TestFindFreePort:
    def test_returns_another_one_each_time_and_none_that_is_taken(self) -> None:
        first = find_free_port()
        with socket.create_server(("127.0.0.1", first + 1)):
            second = find_free_port()

        assert second not in (first, first + 1)
        with socket.create_server(("127.0.0.1", second)) as server:
            assert server.getsockname()[1] == second
