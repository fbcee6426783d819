"""
The table of live calls: places within the limits of all web processes, the waiting list, heartbeats.

`admission.py` has the calls of this process. Where the database does not answer it decides alone, and the heartbeat
writes the missing rows later.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import psutil
from django.contrib.auth import get_user_model
from django.db import Error as AnyDatabaseError
from django.db import connection, transaction
from django.utils import timezone

from avatar_site.lib.own_thread import OwnThread
from avatar_site.lib.process_name import make_process_name, read_host_name
from realtime.admission import LiveCall as Call
from realtime.admission import Outcome
from realtime.models import HEARTBEAT_S, CallState, LiveCall

logger = logging.getLogger(__name__)

#: A call that begins does not wait longer for the table; nor does one that ends.
TIMEOUT_S = 3.0
#: While a call takes over from one of another process.
POLL_S = 0.2
#: PostgreSQL's advisory lock of who takes a place: "live call" in ASCII.
_LOCK_KEY = int.from_bytes(b"livecall")


@dataclass(frozen=True, slots=True)
class Held:
    """A call of this process, as its row has it."""

    session_id: UUID
    user_id: int
    conversation_id: UUID | None
    began_at: dt.datetime
    state: CallState = CallState.ACTIVE


@dataclass(frozen=True, slots=True)
class Taken:
    """
    Whether there was a place, and the calls of the same person and conversation that lost theirs.

    `waits_since` orders the waiting list.
    """

    outcome: Outcome
    replaced: frozenset[UUID] = frozenset()
    waits_since: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a call that waited, and while it waits, its place in the list (1: the next) of `count` calls."""

    state: CallState
    place: int = 0
    count: int = 0


class CallTable:
    """The rows of this process. The database has a thread of its own here: see OwnThread."""

    def __init__(self, *, now: Callable[[], dt.datetime] = timezone.now) -> None:
        self._now = now
        self._thread = OwnThread("live calls")
        self._held: dict[UUID, Held] = {}
        #: Calls that were admitted without the table, which may make them wait when it answers at last.
        self._admitted_alone: set[UUID] = set()
        self._is_failing = False

    async def take(
        self,
        call: Call,
        conversation_id: UUID | None,
        *,
        limit: int,
        limit_per_person: int,
        max_waiting: int,
        is_return: bool,
        is_full: bool = False,
    ) -> Taken:
        """
        Take a place for a call, within the limits of all processes, or one in the waiting list; see `take_place`.

        Where the database does not answer within TIMEOUT_S this process's own limit decides: the call is admitted
        unless `is_full`.
        """
        held = Held(call.session_id, call.user_id, conversation_id, self._now())
        # Before the row is written, so that no heartbeat takes it for one of a call that has left.
        self._held[call.session_id] = held
        try:
            taken = await self._thread.run(
                take_place,
                TIMEOUT_S,
                held,
                process=make_process_name(),
                now=self._now(),
                limit=limit,
                limit_per_person=limit_per_person,
                max_waiting=max_waiting,
                is_return=is_return,
                is_full=is_full,
            )
        except (TimeoutError, AnyDatabaseError) as error:
            logger.warning("the table of live calls does not answer, so this process decides alone: %s", error)
            taken = Taken(Outcome.FULL if is_full else Outcome.ADMITTED)
            self._admitted_alone.add(call.session_id)
        except BaseException:
            del self._held[call.session_id]
            raise
        if taken.waits_since is not None and call.session_id in self._held:
            self._held[call.session_id] = replace(held, state=CallState.WAITING, began_at=taken.waits_since)
        elif taken.outcome is not Outcome.ADMITTED:
            self._held.pop(call.session_id, None)
            # A heartbeat that began in between may have made it a row.
            self._thread.submit(remove, {call.session_id}).add_done_callback(_log_failure)
        return replace(taken, replaced=taken.replaced - self._held.keys())

    async def advance(self, session_ids: Collection[UUID], *, limit: int) -> dict[UUID, Standing]:
        """
        Give free places to those of these calls whose turn it is, and return how all of them stand; see `advance_line`.

        Raises TimeoutError, DatabaseError.
        """
        now = self._now()
        standings = await self._thread.run(advance_line, TIMEOUT_S, frozenset(session_ids), now=now, limit=limit)
        for session_id, standing in standings.items():
            held = self._held.get(session_id)
            if held is not None and held.state is CallState.WAITING and standing.state is CallState.ACTIVE:
                self._held[session_id] = replace(held, state=CallState.ACTIVE, began_at=now)
        return standings

    def release(self, session_id: UUID) -> None:
        """Give the place back, at once, while the call's turns are still being saved. The row is written later."""
        held = self._held.get(session_id)
        if held is not None:
            self._held[session_id] = replace(held, state=CallState.ENDING)
            self._thread.submit(mark, {session_id}, CallState.ENDING).add_done_callback(_log_failure)

    async def leave(self, session_id: UUID) -> None:
        """Remove a call that has ended. A row that cannot be removed now is removed by a heartbeat."""
        if self._held.pop(session_id, None) is not None:
            try:
                await self._thread.run(remove, TIMEOUT_S, {session_id})
            except (TimeoutError, AnyDatabaseError) as error:
                logger.info("the row of session %s is left to the heartbeat: %s", session_id, error)

    async def wait_until_gone(self, session_ids: Collection[UUID]) -> None:
        """Return when these calls have left, their turns saved. The caller sets a deadline. Raises DatabaseError."""
        while await self._thread.run(exist, TIMEOUT_S, session_ids):  # noqa: ASYNC110 — other processes
            await asyncio.sleep(POLL_S)

    async def run(self) -> None:
        """Send a heartbeat of all calls of this process every HEARTBEAT_S until cancelled."""
        while True:
            await self.beat()
            await asyncio.sleep(HEARTBEAT_S)

    async def beat(self) -> None:
        """Renew the rows. A database that is away costs no call: it is tried again with the next heartbeat."""
        held, alone = list(self._held.values()), frozenset(self._admitted_alone)
        try:
            await self._thread.run(
                write_heartbeat,
                HEARTBEAT_S,
                held,
                process=make_process_name(),
                now=self._now(),
                admitted_alone=alone,
            )
        except (TimeoutError, AnyDatabaseError) as error:
            if not self._is_failing:
                logger.warning("heartbeats of live calls cannot be written: %s", error)
            self._is_failing = True
        else:
            self._is_failing = False
            self._admitted_alone -= alone

    def close(self) -> None:
        """End the thread, once what it waits for has answered."""
        self._thread.close()


def take_place(
    held: Held,
    *,
    process: str,
    now: dt.datetime,
    limit: int,
    limit_per_person: int,
    max_waiting: int,
    is_return: bool,
    is_full: bool = False,
) -> Taken:
    """
    Take a place in one transaction, or one at the end of the waiting list. Raises DatabaseError.

    A place that is free belongs to those who wait already. Calls of the same person and conversation lose theirs: they
    are replaced, and so is their place in the list. A call that replaces one with a place, here or in another process
    (`is_return`), needs no free one. `is_full` says that the process has none.
    """
    with transaction.atomic():
        _lock()
        LiveCall.objects.stale(now).delete()
        others = LiveCall.objects.entered(now).exclude(pk=held.session_id)
        lost: list[LiveCall] = []
        if held.conversation_id is not None:
            lost = list(others.of_conversation(held.user_id, held.conversation_id))
            mark([each.pk for each in lost], CallState.REPLACED)
        replaced = frozenset(each.pk for each in lost)
        if not is_return and not any(each.state == CallState.ACTIVE for each in lost):
            entered = list(others.values_list("user_id", "state"))
            waiting = sum(state == CallState.WAITING for _, state in entered)
            if not lost and sum(user_id == held.user_id for user_id, _ in entered) >= limit_per_person:
                return Taken(Outcome.TOO_MANY)
            if is_full or len(entered) >= limit:
                if not lost and waiting >= max_waiting:
                    return Taken(Outcome.FULL)
                since = min((each.began_at for each in lost), default=held.began_at)
                held = replace(held, state=CallState.WAITING, began_at=since)
        # Not only an insertion: a heartbeat may have made the row meanwhile.
        _make_row(held, process=process, now=now).save()
    if held.state is CallState.WAITING:
        return Taken(Outcome.WAITING, replaced, waits_since=held.began_at)
    return Taken(Outcome.ADMITTED, replaced)


def advance_line(session_ids: frozenset[UUID], *, now: dt.datetime, limit: int) -> dict[UUID, Standing]:
    """
    Give free places to the first in the waiting list that are among these calls, and return how these calls stand.

    The others of the list are let in by their own processes. A call without a row is not in the result. Costs one
    query, and a transaction only when one of these calls gets a place. Raises DatabaseError.
    """
    line, states = _read_line(now, limit)
    if line.next & session_ids:
        with transaction.atomic():
            _lock()
            line, _ = _read_line(now, limit)
            admitted = LiveCall.objects.filter(pk__in=line.next & session_ids, state=CallState.WAITING)
            admitted.update(state=CallState.ACTIVE, began_at=now)
        line, states = _read_line(now, limit)
    places = {session_id: place for place, session_id in enumerate(line.waiting, 1)}
    return {
        session_id: Standing(state, places.get(session_id, 0), len(places) if session_id in places else 0)
        for session_id, state in states.items()
        if session_id in session_ids
    }


@dataclass(frozen=True, slots=True)
class _Line:
    """Who waits, the first first, and those of them for whom there are places."""

    waiting: list[UUID]
    next: frozenset[UUID]


def _read_line(now: dt.datetime, limit: int) -> tuple[_Line, dict[UUID, CallState]]:
    rows = LiveCall.objects.fresh(now).oldest_first().values_list("pk", "state")
    states = {session_id: CallState(state) for session_id, state in rows}
    waiting = [session_id for session_id, state in states.items() if state is CallState.WAITING]
    free = limit - sum(state is CallState.ACTIVE for state in states.values())
    return _Line(waiting, frozenset(waiting[: max(0, free)])), states


def write_heartbeat(
    calls: Iterable[Held], *, process: str, now: dt.datetime, admitted_alone: Collection[UUID] = ()
) -> None:
    """
    Make the rows of a process what it holds: one UPDATE for all of them. Raises DatabaseError.

    Rows are missing if the database was away; rows are too many if it was away, or the process has the pid of another.
    A row of a call that was `admitted_alone` must not wait: it would block the list for good.
    """
    held = {call.session_id: call for call in calls}
    rows = LiveCall.objects.filter(process=process)
    known = set(rows.values_list("pk", flat=True))
    if known:
        rows.update(last_seen_at=now)
    remove(known - held.keys())
    if admitted_alone:
        rows.filter(pk__in=admitted_alone, state=CallState.WAITING).update(state=CallState.ACTIVE)
    missing = [call for session_id, call in held.items() if session_id not in known]
    if missing:
        users = get_user_model().objects.filter(pk__in={call.user_id for call in missing})
        known_users = set(users.values_list("pk", flat=True))
        LiveCall.objects.bulk_create(
            [_make_row(call, process=process, now=now) for call in missing if call.user_id in known_users],
            ignore_conflicts=True,
        )
    _remove_rows_of_dead_processes(process)


def mark(session_ids: Collection[UUID], state: CallState) -> int:
    """Set the state of calls; see CallState. Return how many there are. Raises DatabaseError."""
    return LiveCall.objects.filter(pk__in=session_ids).update(state=state) if session_ids else 0


def remove(session_ids: Collection[UUID]) -> None:
    if session_ids:
        LiveCall.objects.filter(pk__in=session_ids).delete()


def exist(session_ids: Collection[UUID]) -> bool:
    return LiveCall.objects.fresh(timezone.now()).filter(pk__in=session_ids).exists()


def _make_row(held: Held, *, process: str, now: dt.datetime) -> LiveCall:
    return LiveCall(
        session_id=held.session_id,
        user_id=held.user_id,
        conversation_id=held.conversation_id,
        state=held.state,
        process=process,
        began_at=held.began_at,
        last_seen_at=now,
    )


def _remove_rows_of_dead_processes(process: str) -> None:
    """After a crash, who comes back at once must not find the places of before taken."""
    host = read_host_name()
    of_host = LiveCall.objects.filter(process__startswith=f"{host}:").exclude(process=process)
    for name in set(of_host.values_list("process", flat=True)):
        pid = name.removeprefix(f"{host}:")
        if not (pid.isdecimal() and psutil.pid_exists(int(pid))):
            LiveCall.objects.filter(process=name).delete()


def _lock() -> None:
    """Keep others from taking a place until this transaction ends. On SQLite it has the write lock already."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK_KEY])


def _log_failure(future: Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        logger.info("the state of a call could not be written: %s", error)


call_table = CallTable()
