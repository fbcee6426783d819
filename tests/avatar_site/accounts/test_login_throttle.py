import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from avatar_site.accounts import login_throttle
from avatar_site.accounts.login_throttle import (
    ACCOUNT_POLICY,
    ADDRESS_POLICY,
    HashingBusy,
    LoginThrottle,
    LoginThrottled,
    Policy,
)
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> LoginThrottle:
    return LoginThrottle(clock=clock)


def fail(throttle: LoginThrottle, times: int, *, username: str = "alice", address: str = "10.0.0.1") -> None:
    for _ in range(times):
        throttle.reserve(username=username, address=address)


class TestPolicy:
    @pytest.mark.parametrize(
        ("failures", "delay_s"), [(0, 0), (4, 0), (5, 2), (6, 4), (9, 32), (10, 60), (100_000, 60)]
    )
    def test_doubles_the_delay_up_to_its_maximum(self, failures: int, delay_s: float) -> None:
        policy = Policy(free_failures=5, first_delay_s=2.0, max_delay_s=60.0)

        assert policy.compute_delay_s(failures) == delay_s


class TestLoginThrottle:
    def test_refuses_an_account_after_its_free_failures(self, throttle: LoginThrottle) -> None:
        fail(throttle, ACCOUNT_POLICY.free_failures)

        with pytest.raises(LoginThrottled) as refusal:
            throttle.reserve(username="alice", address="10.0.0.2")

        assert refusal.value.wait_s == pytest.approx(2.0)

    def test_looks_at_an_attempt_again_when_the_delay_is_over(self, throttle: LoginThrottle, clock: Clock) -> None:
        fail(throttle, ACCOUNT_POLICY.free_failures)

        clock.now += 2.1

        throttle.reserve(username="alice", address="10.0.0.1")

    def test_does_not_prolong_the_delay_for_attempts_during_it(self, throttle: LoginThrottle, clock: Clock) -> None:
        fail(throttle, ACCOUNT_POLICY.free_failures)
        for _ in range(50):
            with pytest.raises(LoginThrottled):
                throttle.reserve(username="alice", address="10.0.0.1")

        clock.now += 2.1

        throttle.reserve(username="alice", address="10.0.0.1")

    @pytest.mark.parametrize("name", ["ALICE", "ａｌｉｃｅ"])
    def test_counts_spellings_of_one_name_together(self, throttle: LoginThrottle, name: str) -> None:
        fail(throttle, ACCOUNT_POLICY.free_failures)

        with pytest.raises(LoginThrottled):
            throttle.reserve(username=name, address="10.0.0.9")

    def test_refuses_an_address_that_tries_many_names(self, throttle: LoginThrottle) -> None:
        for number in range(ADDRESS_POLICY.free_failures):
            fail(throttle, 1, username=f"name-{number}")

        with pytest.raises(LoginThrottled):
            throttle.reserve(username="one-more", address="10.0.0.1")
        throttle.reserve(username="one-more", address="10.0.0.2")

    def test_forgets_the_failures_of_an_account_that_logs_in(self, throttle: LoginThrottle) -> None:
        fail(throttle, ACCOUNT_POLICY.free_failures)

        throttle.clear(username="alice", address="10.0.0.1")

        fail(throttle, ACCOUNT_POLICY.free_failures)

    def test_keeps_the_failures_of_an_address_when_one_of_its_people_logs_in(self, throttle: LoginThrottle) -> None:
        for number in range(ADDRESS_POLICY.free_failures):
            fail(throttle, 1, username=f"name-{number}")

        throttle.clear(username="own-account", address="10.0.0.1")
        fail(throttle, 1, username="x")

        with pytest.raises(LoginThrottled):
            throttle.reserve(username="y", address="10.0.0.1")

    def test_keeps_earlier_failures_when_an_attempt_is_taken_back(self, throttle: LoginThrottle) -> None:
        fail(throttle, ACCOUNT_POLICY.free_failures - 1)
        throttle.reserve(username="alice", address="10.0.0.2")
        throttle.release(username="alice", address="10.0.0.2")
        fail(throttle, 1)

        with pytest.raises(LoginThrottled):
            throttle.reserve(username="alice", address="10.0.0.3")

    def test_counts_the_addresses_of_one_subscriber_together(self, throttle: LoginThrottle) -> None:
        for number in range(ADDRESS_POLICY.free_failures):
            fail(throttle, 1, username=f"name-{number}", address=f"2001:db8:1:2::{number:x}")

        with pytest.raises(LoginThrottled):
            throttle.reserve(username="one-more", address="2001:db8:1:2:ffff::1")
        throttle.reserve(username="one-more", address="2001:db8:1:3::1")

    def test_does_not_let_attempts_at_the_same_moment_pass_together(self, throttle: LoginThrottle) -> None:
        def attempt(_: int) -> bool:
            try:
                throttle.reserve(username="alice", address="10.0.0.1")
            except LoginThrottled:
                return False
            return True

        with ThreadPoolExecutor(24) as pool:
            passed = sum(pool.map(attempt, range(24)))

        assert passed == ACCOUNT_POLICY.free_failures

    def test_computes_two_hashes_at_a_time(self, throttle: LoginThrottle, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(login_throttle, "HASH_WAIT_S", 0.01)
        entered, release = threading.Barrier(3), threading.Event()

        def hash_password() -> None:
            with throttle.hash_slot():
                entered.wait(10)
                release.wait(10)

        threads = [threading.Thread(target=hash_password) for _ in range(2)]
        for thread in threads:
            thread.start()
        entered.wait(10)

        with pytest.raises(HashingBusy), throttle.hash_slot():
            pass

        release.set()
        for thread in threads:
            thread.join(10)
        with throttle.hash_slot():
            pass
