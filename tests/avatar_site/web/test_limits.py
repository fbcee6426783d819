import pytest

from avatar_site.web.limits import Admission, Backlog, Connections, Limits, Tally, group_address

LIMITS = Limits(max_connections=4, max_connections_per_address=2)


def fill(connections: Connections[str], *keys: str) -> None:
    """Each key begins with its address."""
    for key in keys:
        assert connections.enter(key, key[0]).is_admitted


class TestConnections:
    def test_replaces_the_longest_idle_one_of_an_address_with_too_many(self) -> None:
        connections = Connections[str](LIMITS)
        fill(connections, "b1", "a1", "a2")

        assert connections.enter("a3", "a") == Admission(True, "a1", "2 connections of a")
        assert connections.enter("a4", "a") == Admission(True, "a2", "2 connections of a")

    def test_refuses_an_address_with_too_many_that_are_busy(self) -> None:
        connections = Connections[str](LIMITS)
        fill(connections, "b1", "a1", "a2")
        connections.mark_busy("a1")
        connections.mark_busy("a2")

        assert connections.enter("a3", "a") == Admission(False, None, "2 connections of a")
        assert connections.enter("b2", "b") == Admission(True)

    def test_replaces_the_longest_idle_one_of_all_when_there_are_too_many(self) -> None:
        connections = Connections[str](LIMITS)
        fill(connections, "a1", "b1", "c1", "d1")
        connections.mark_busy("a1")
        connections.mark_busy("b1")
        connections.mark_idle("a1")

        assert connections.enter("e1", "e").replaced == "c1"
        assert connections.enter("f1", "f").replaced == "d1"
        assert connections.enter("g1", "g").replaced == "a1"
        assert len(connections) == 4

    def test_refuses_when_there_are_too_many_that_are_busy(self) -> None:
        connections = Connections[str](LIMITS)
        fill(connections, "a1", "b1", "c1", "d1")
        for key in ("a1", "b1", "c1", "d1"):
            connections.mark_busy(key)

        assert connections.enter("e1", "e") == Admission(False, None, "4 connections in all")

    def test_has_room_again_when_one_has_left(self) -> None:
        connections = Connections[str](LIMITS)
        fill(connections, "a1", "a2")

        connections.leave("a1")
        connections.leave("a1")

        assert connections.enter("a3", "a") == Admission(True)

    def test_counts_no_addresses_behind_a_proxy_or_on_a_unix_socket(self) -> None:
        behind_proxy = Connections[int](Limits(max_connections=10, max_connections_per_address=None))
        on_unix_socket = Connections[int](Limits(max_connections=10, max_connections_per_address=2))

        assert all(behind_proxy.enter(number, "127.0.0.1") == Admission(True) for number in range(10))
        assert all(on_unix_socket.enter(number, "") == Admission(True) for number in range(10))

    def test_ignores_a_replaced_one_that_becomes_idle(self) -> None:
        connections = Connections[str](LIMITS)
        fill(connections, "a1", "a2")
        connections.leave("a1")

        connections.mark_idle("a1")

        assert len(connections) == 1


class TestGroupAddress:
    @pytest.mark.parametrize(
        ("host", "group"),
        [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("", ""),
        ],
    )
    def test_is_what_one_subscriber_has(self, host: str, group: str) -> None:
        assert group_address(host) == group


class TestBacklog:
    def test_is_long_by_number_and_short_again_at_half(self) -> None:
        backlog = Backlog(Limits(max_waiting_messages=4))
        for _ in range(3):
            backlog.add(1)
        assert not backlog.is_long

        backlog.add(1)
        assert backlog.is_long

        backlog.take()
        assert not backlog.is_short
        backlog.take()
        assert backlog.is_short

    def test_is_long_by_size(self) -> None:
        backlog = Backlog(Limits(max_waiting_bytes=100))

        backlog.add(100)

        assert backlog.is_long
        backlog.take()
        assert backlog.is_short


class TestTally:
    def test_reports_at_once_and_then_in_sums(self) -> None:
        tally = Tally(interval_s=10)

        assert [tally.add("refused", now) for now in (0.0, 1.0, 9.9)] == [1, 0, 0]
        assert tally.add("head", 5.0) == 1
        assert tally.add("refused", 10.0) == 3
        assert tally.add("refused", 25.0) == 1
