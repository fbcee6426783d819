"""Places within the limits of all processes: two tables here are two processes."""

import asyncio
import datetime as dt
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from avatar_site.lib.process_name import make_process_name, read_host_name
from realtime import call_table
from realtime.admission import Outcome
from realtime.call_table import CallTable, Held, Standing, Taken, advance_line, take_place, write_heartbeat
from realtime.models import STALE_AFTER, CallState, LiveCall
from tests import factories
from tests.databases import as_default
from tests.postgres import running_postgres

pytestmark = pytest.mark.django_db(transaction=True)

NOW = timezone.now()


def hold(user: User, conversation_id: UUID | None = None) -> Held:
    return Held(uuid4(), user.pk, conversation_id, NOW)


def take(
    held: Held,
    *,
    process: str = "here:1",
    limit: int = 5,
    per_person: int = 2,
    max_waiting: int = 0,
    **options: bool,
) -> Taken:
    options = {"is_return": False} | options
    limits = {"limit": limit, "limit_per_person": per_person, "max_waiting": max_waiting}
    return take_place(held, process=process, now=NOW, **limits, **options)


def read_states() -> dict[UUID, str]:
    return dict(LiveCall.objects.values_list("pk", "state"))


def enter_together(user: User, count: int, *, limit: int, url: str = "") -> list[Outcome]:
    """Take a place in so many threads at once, each a process to the table."""
    start = threading.Barrier(count)

    def enter(number: int) -> Outcome:
        start.wait(20)
        with as_default(url) if url else closing(connection):
            return take(hold(user), process=f"here:{number}", limit=limit, per_person=count).outcome

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(enter, range(count)))


class TestTakePlace:
    def test_counts_the_calls_of_all_processes(self, alice: User, bob: User) -> None:
        assert take(hold(alice), process="here:1", limit=2).outcome is Outcome.ADMITTED
        assert take(hold(alice), process="elsewhere:1", limit=2).outcome is Outcome.ADMITTED

        assert take(hold(bob), process="here:2", limit=2).outcome is Outcome.FULL
        assert take(hold(alice), process="here:2", limit=2).outcome is Outcome.TOO_MANY
        assert take(hold(bob), process="here:2", limit=3).outcome is Outcome.ADMITTED
        assert LiveCall.objects.count() == 3

    @pytest.mark.parametrize("state", [CallState.ENDING, CallState.REPLACED])
    def test_counts_no_call_without_a_place(self, alice: User, state: CallState) -> None:
        factories.create_live_call(alice, state=state, last_seen_at=NOW)

        assert take(hold(alice), limit=1).outcome is Outcome.ADMITTED

    def test_forgets_a_call_whose_process_sends_no_heartbeats(self, alice: User) -> None:
        killed = factories.create_live_call(alice, last_seen_at=NOW - STALE_AFTER)
        alive = factories.create_live_call(alice, last_seen_at=NOW - STALE_AFTER + dt.timedelta(seconds=1))

        assert take(hold(alice), limit=2).outcome is Outcome.ADMITTED
        assert killed.pk not in read_states()
        assert alive.pk in read_states()

    def test_forgets_a_call_of_before_the_clock_was_set_back(self, alice: User) -> None:
        of_before = factories.create_live_call(alice, last_seen_at=NOW + dt.timedelta(hours=1))
        # Of another machine, whose clock is ahead of this one's.
        ahead = factories.create_live_call(alice, last_seen_at=NOW + STALE_AFTER)

        assert LiveCall.objects.entered(NOW).count() == 1
        assert take(hold(alice), limit=2).outcome is Outcome.ADMITTED
        assert of_before.pk not in read_states()
        assert ahead.pk in read_states()

    def test_replaces_a_call_of_the_same_person_and_conversation_in_another_process(
        self, alice: User, bob: User
    ) -> None:
        conversation_id = uuid4()
        old, others = hold(alice, conversation_id), hold(bob, conversation_id)
        take(old, process="elsewhere:1")
        take(others, process="elsewhere:1")

        taken = take(hold(alice, conversation_id), limit=2, per_person=1)

        assert taken == Taken(Outcome.ADMITTED, frozenset({old.session_id}))
        assert read_states()[old.session_id] == CallState.REPLACED
        assert read_states()[others.session_id] == CallState.ACTIVE

    def test_needs_no_free_place_for_a_return(self, alice: User) -> None:
        take(hold(alice), limit=1)

        assert take(hold(alice), limit=1, per_person=1, is_return=True).outcome is Outcome.ADMITTED

    def test_never_gives_the_last_place_twice(self, alice: User) -> None:
        outcomes = enter_together(alice, 6, limit=3)

        assert outcomes.count(Outcome.ADMITTED) == 3
        assert LiveCall.objects.count() == 3


def stand(*session_ids: UUID, limit: int = 1) -> dict[UUID, Standing]:
    return advance_line(frozenset(session_ids), now=NOW, limit=limit)


def hold_at(user: User, seconds: int, conversation_id: UUID | None = None) -> Held:
    return Held(uuid4(), user.pk, conversation_id, NOW + dt.timedelta(seconds=seconds))


class TestWaitingList:
    """One place, which Bob has."""

    @pytest.fixture(autouse=True)
    def taken(self, bob: User) -> LiveCall:
        return factories.create_live_call(bob, last_seen_at=NOW)

    def wait(self, held: Held, **options: Any) -> Held:
        taken = take(held, **{"limit": 1, "max_waiting": 9, "per_person": 9} | options)
        assert (taken.outcome, taken.waits_since) == (Outcome.WAITING, held.began_at)
        return held

    def test_lets_the_oldest_in_whatever_order_they_ask_in(self, alice: User, taken: LiveCall) -> None:
        second, first = self.wait(hold_at(alice, 2)), self.wait(hold_at(alice, 1), process="elsewhere:1")
        ids = (first.session_id, second.session_id)
        assert stand(*ids) == {ids[0]: Standing(CallState.WAITING, 1, 2), ids[1]: Standing(CallState.WAITING, 2, 2)}

        taken.delete()
        assert stand(ids[1]) == {ids[1]: Standing(CallState.WAITING, 2, 2)}
        assert stand(ids[0]) == {ids[0]: Standing(CallState.ACTIVE)}
        assert stand(ids[1]) == {ids[1]: Standing(CallState.WAITING, 1, 1)}
        assert LiveCall.objects.get(pk=ids[0]).began_at == NOW

    def test_lets_as_many_in_as_there_are_places(self, alice: User, taken: LiveCall) -> None:
        ids = [self.wait(hold_at(alice, number)).session_id for number in range(4)]

        states = [stand(*ids, limit=3)[each].state for each in ids]

        assert states == [CallState.ACTIVE, CallState.ACTIVE, CallState.WAITING, CallState.WAITING]

    def test_gives_a_newcomer_no_place_that_others_wait_for(self, alice: User, taken: LiveCall) -> None:
        first = self.wait(hold_at(alice, 1))
        taken.delete()

        self.wait(hold_at(alice, 2))
        assert take(hold_at(alice, 3), limit=3, per_person=9).outcome is Outcome.ADMITTED
        assert stand(first.session_id)[first.session_id].state is CallState.WAITING  # the third has it

    def test_refuses_at_once_who_holds_or_waits_for_as_many_as_one_person_may(self, alice: User) -> None:
        self.wait(hold_at(alice, 1))
        self.wait(hold_at(alice, 2))

        assert take(hold_at(alice, 3), limit=1, max_waiting=9).outcome is Outcome.TOO_MANY

    def test_is_bounded(self, alice: User) -> None:
        self.wait(hold_at(alice, 1), max_waiting=1)

        assert take(hold_at(alice, 2), limit=1, max_waiting=1).outcome is Outcome.FULL

    def test_is_joined_where_only_the_process_has_no_place(self, alice: User) -> None:
        assert take(hold(alice), limit=9, max_waiting=1, is_full=True).outcome is Outcome.WAITING

    def test_is_passed_by_a_call_that_replaces_its_own(self, alice: User, bob: User, taken: LiveCall) -> None:
        conversation_id = uuid4()
        LiveCall.objects.update(conversation_id=conversation_id)
        self.wait(hold_at(alice, 1))

        back = take(hold_at(bob, 2, conversation_id), limit=1, max_waiting=9)

        assert back == Taken(Outcome.ADMITTED, frozenset({taken.pk}))

    def test_keeps_the_place_of_a_connection_that_was_lost(self, alice: User) -> None:
        conversation_id = uuid4()
        lost = self.wait(hold_at(alice, 1, conversation_id))
        other = self.wait(hold_at(alice, 2))
        back = hold_at(alice, 3, conversation_id)

        taken = take(back, limit=1, max_waiting=2, per_person=2)

        assert taken == Taken(Outcome.WAITING, frozenset({lost.session_id}), waits_since=lost.began_at)
        standings = stand(lost.session_id, other.session_id, back.session_id)
        assert standings[lost.session_id].state is CallState.REPLACED
        assert (standings[back.session_id].place, standings[other.session_id].place) == (1, 2)

    def test_does_not_wait_for_callers_of_a_process_that_was_killed(self, alice: User, taken: LiveCall) -> None:
        killed, waits = self.wait(hold_at(alice, 1)), self.wait(hold_at(alice, 2))
        LiveCall.objects.filter(pk=killed.session_id).update(last_seen_at=NOW - STALE_AFTER)
        taken.delete()

        assert stand(waits.session_id)[waits.session_id].state is CallState.ACTIVE

    def test_costs_one_query_while_nobody_is_let_in(self, alice: User) -> None:
        ids = [self.wait(hold_at(alice, number)).session_id for number in range(5)]

        with CaptureQueriesContext(connection) as queries:
            stand(*ids)

        assert len(queries) == 1

    def test_says_that_an_operator_has_ended_a_call(self, alice: User) -> None:
        ended, behind = self.wait(hold_at(alice, 1)), self.wait(hold_at(alice, 2))

        call_table.mark({ended.session_id}, CallState.ENDING)

        standings = stand(ended.session_id, behind.session_id)
        assert standings[ended.session_id] == Standing(CallState.ENDING)
        assert standings[behind.session_id] == Standing(CallState.WAITING, 1, 1)

    def test_never_gives_a_place_twice(self, alice: User, taken: LiveCall) -> None:
        ids = [self.wait(hold_at(alice, number)).session_id for number in range(6)]
        advance_together(ids, limit=3)

        states = list(LiveCall.objects.oldest_first().values_list("state", flat=True))
        assert states.count(CallState.ACTIVE) == 3


def advance_together(session_ids: Sequence[UUID], *, limit: int, url: str = "") -> None:
    """Have the list advanced in a thread for each of these calls at once."""
    start = threading.Barrier(len(session_ids))

    def advance(session_id: UUID) -> None:
        start.wait(20)
        with as_default(url) if url else closing(connection):
            stand(session_id, limit=limit)

    with ThreadPoolExecutor(len(session_ids)) as pool:
        list(pool.map(advance, session_ids))


@pytest.fixture
def postgres(django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    """A migrated database of PostgreSQL, as Django's default."""
    with running_postgres("calls") as server:
        with server.connect() as admin:
            admin.execute("CREATE DATABASE site")
        url = server.make_url("site")
        with django_db_blocker.unblock(), as_default(url):
            call_command("migrate", verbosity=0)
            yield url


class TestPostgres:
    def test_never_gives_the_last_place_twice(self, postgres: str) -> None:
        user = factories.create_user("alice")

        outcomes = enter_together(user, 12, limit=3, url=postgres)

        assert outcomes.count(Outcome.ADMITTED) == 3
        assert LiveCall.objects.count() == 3
        write_heartbeat([], process="here:0", now=timezone.now())

        # The rest waits, and is let in by one place at a time.
        waiting = [hold_at(user, number) for number in range(6)]
        for each in waiting:
            assert take(each, limit=3, per_person=20, max_waiting=6).outcome is Outcome.WAITING
        advance_together([each.session_id for each in waiting], limit=5, url=postgres)
        states = list(LiveCall.objects.oldest_first().values_list("state", flat=True))
        assert states.count(CallState.ACTIVE) == 5


class TestWriteHeartbeat:
    def test_renews_all_calls_of_a_process_in_one_update(self, alice: User) -> None:
        calls = [hold(alice) for _ in range(3)]
        for call in calls:
            take(call, per_person=9)
        others = factories.create_live_call(alice, last_seen_at=NOW)
        later = NOW + dt.timedelta(seconds=15)

        with CaptureQueriesContext(connection) as queries:
            write_heartbeat(calls, process="here:1", now=later)

        written = [query["sql"] for query in queries if not query["sql"].startswith("SELECT")]
        assert len(written) == 1
        assert written[0].startswith("UPDATE")
        seen = dict(LiveCall.objects.values_list("pk", "last_seen_at"))
        assert {seen[call.session_id] for call in calls} == {later}
        assert seen[others.pk] == NOW

    def test_costs_a_process_without_calls_no_write(self) -> None:
        with CaptureQueriesContext(connection) as queries:
            write_heartbeat([], process="here:1", now=NOW)

        assert all(query["sql"].startswith("SELECT") for query in queries)

    def test_writes_what_the_database_missed_while_it_was_away(self, alice: User) -> None:
        gone, missed, ending = hold(alice), hold(alice), hold(alice)
        take(gone)
        take(ending)
        call_table.mark({ending.session_id}, CallState.ENDING)

        write_heartbeat([missed, ending], process="here:1", now=NOW)

        assert read_states() == {missed.session_id: CallState.ACTIVE, ending.session_id: CallState.ENDING}

    def test_does_not_let_a_call_wait_that_was_admitted_while_the_database_was_away(self, alice: User) -> None:
        admitted, waits = hold(alice), hold(alice)
        for call in (admitted, waits):
            take(call, limit=1, max_waiting=2, is_full=True)

        write_heartbeat([admitted, waits], process="here:1", now=NOW, admitted_alone={admitted.session_id})

        assert read_states() == {admitted.session_id: CallState.ACTIVE, waits.session_id: CallState.WAITING}

    def test_passes_over_a_person_who_was_deleted(self, alice: User, bob: User) -> None:
        alices, bobs = hold(alice), hold(bob)
        bob.delete()

        write_heartbeat([alices, bobs], process="here:1", now=NOW)

        assert list(read_states()) == [alices.session_id]

    def test_removes_the_calls_of_processes_of_this_machine_that_are_gone(self, alice: User) -> None:
        host = read_host_name()
        # Above the largest number of a process.
        dead = factories.create_live_call(alice, process=f"{host}:{2**31 - 1}")
        alive = factories.create_live_call(alice, process=f"{host}:{os.getppid()}")
        elsewhere = factories.create_live_call(alice, process="elsewhere:2147483647")

        write_heartbeat([], process=make_process_name(), now=NOW)

        assert dead.pk not in read_states()
        assert {alive.pk, elsewhere.pk} <= read_states().keys()


class Call:
    def __init__(self, user: User) -> None:
        self.session_id = uuid4()
        self.user_id = user.pk
        self.conversation_id: UUID | None = None


@pytest.fixture
def table() -> Iterator[CallTable]:
    table = CallTable()
    yield table
    table.close()


async def enter(table: CallTable, call: Any, **limits: int) -> Outcome:
    limits = {"limit": 5, "limit_per_person": 2, "max_waiting": 0} | limits
    return (await table.take(call, None, is_return=False, **limits)).outcome


@pytest.fixture
def locked() -> Iterator[None]:
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL has no lock of the whole database")
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    yield
    if other.in_transaction:
        other.execute("ROLLBACK")
    other.close()


class TestCallTable:
    async def test_has_a_row_from_the_entry_to_the_end(self, table: CallTable, alice: User) -> None:
        call = Call(alice)

        await enter(table, call)
        row = await LiveCall.objects.aget(pk=call.session_id)
        table.release(call.session_id)
        await table.beat()  # after what was given to the thread before
        released = await LiveCall.objects.aget(pk=call.session_id)
        await table.leave(call.session_id)

        assert (row.user_id, row.process, row.state) == (alice.pk, make_process_name(), CallState.ACTIVE)
        assert released.state == CallState.ENDING
        assert not await LiveCall.objects.aexists()

    async def test_has_no_row_of_a_refused_call_that_a_heartbeat_saw(self, table: CallTable, alice: User) -> None:
        await enter(table, Call(alice), limit=1)
        refused = Call(alice)

        outcome, _ = await asyncio.gather(enter(table, refused, limit=1), table.beat())
        await table.wait_until_gone(())  # after what was given to the thread before

        assert outcome is Outcome.FULL
        assert not await LiveCall.objects.filter(pk=refused.session_id).aexists()

    async def test_holds_nothing_of_a_call_that_was_refused(self, table: CallTable, alice: User) -> None:
        await enter(table, Call(alice), limit=1)

        assert await enter(table, Call(alice), limit=1) is Outcome.FULL
        await table.beat()
        assert await LiveCall.objects.acount() == 1

    async def test_admits_while_the_database_is_locked_and_writes_the_row_afterwards(
        self, table: CallTable, alice: User, locked: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(call_table, "TIMEOUT_S", 0.1)
        call = Call(alice)

        async with asyncio.timeout(5):
            outcome = await enter(table, call)
            others = await LiveCall.objects.acount()  # nobody else's query waits for it

        assert (outcome, others) == (Outcome.ADMITTED, 0)

    async def test_refuses_who_finds_the_process_full_while_the_database_is_locked(
        self, table: CallTable, alice: User, locked: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(call_table, "TIMEOUT_S", 0.1)

        async with asyncio.timeout(5):
            taken = await table.take(
                Call(alice), None, limit=1, limit_per_person=2, max_waiting=9, is_return=False, is_full=True
            )

        assert taken.outcome is Outcome.FULL

    async def test_writes_a_call_that_waits_again_when_its_row_was_lost(self, table: CallTable, alice: User) -> None:
        await enter(table, Call(alice), limit=1)
        waits = Call(alice)
        assert await enter(table, waits, limit=1, max_waiting=1) is Outcome.WAITING
        since = (await LiveCall.objects.aget(pk=waits.session_id)).began_at

        await LiveCall.objects.all().adelete()
        await table.beat()

        row = await LiveCall.objects.aget(pk=waits.session_id)
        assert (row.state, row.began_at) == (CallState.WAITING, since)

    async def test_holds_what_it_lets_in_as_active(self, table: CallTable, alice: User) -> None:
        first, waits = Call(alice), Call(alice)
        await enter(table, first, limit=1)
        await enter(table, waits, limit=1, max_waiting=1)

        await table.leave(first.session_id)
        standings = await table.advance([waits.session_id], limit=1)
        await LiveCall.objects.all().adelete()
        await table.beat()

        assert standings == {waits.session_id: Standing(CallState.ACTIVE)}
        assert (await LiveCall.objects.aget()).state == CallState.ACTIVE

    async def test_waits_until_a_call_of_another_process_is_gone(self, table: CallTable, alice: User) -> None:
        other = await LiveCall.objects.acreate(
            session_id=uuid4(), user=alice, process="elsewhere:1", began_at=NOW, last_seen_at=timezone.now()
        )

        waiting = asyncio.create_task(table.wait_until_gone({other.pk}))
        await asyncio.sleep(0)
        assert not waiting.done()
        await other.adelete()
        async with asyncio.timeout(5):
            await waiting
