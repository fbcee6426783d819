import asyncio
import datetime as dt
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone

from avatar_site.operations import status
from avatar_site.operations.models import BackupRun, RunKind, RunState
from avatar_site.operations.serve_state import ChildState, ServeState
from avatar_site.operations.status import (
    DEFAULT_LIMITS,
    MAX_AGE_S,
    DatabaseReport,
    Health,
    InferenceReport,
    Limits,
    MachineReport,
    MemoryKind,
    Prober,
    Usage,
    judge,
    read_database,
    read_limits,
)
from inference.interfaces import (
    DeviceMemory,
    InferenceStatus,
    Role,
    RoleState,
    RoleStatus,
)
from realtime.models import STALE_AFTER, CallState
from tests import factories

NOW = dt.datetime(2026, 11, 27, 8, 0, tzinfo=dt.UTC)
GIB = 1024**3


def make_status(**states: RoleState) -> InferenceStatus:
    return InferenceStatus(
        profile="fake",
        roles=tuple(
            RoleStatus(
                role=role,
                state=states.get(role.value, RoleState.READY),
                engine="fake",
                model="script",
                device="cpu",
                load_s=0.5,
                memory_bytes=1000,
                reason="weights are missing" if states.get(role.value) is RoleState.UNAVAILABLE else "",
            )
            for role in Role
        ),
        resident_bytes=5000,
        started_at=1.0,
    )


class Inference:
    """Answers `status()` as told, and counts how often it was asked."""

    def __init__(self, answer: InferenceStatus | Exception) -> None:
        self.answer = answer
        self.times_asked = 0

    async def status(self) -> InferenceStatus:
        self.times_asked += 1
        await asyncio.sleep(0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class NeverAnswers:
    async def status(self) -> InferenceStatus:
        await asyncio.Event().wait()
        raise AssertionError


@pytest.fixture
def make_prober(tmp_path: Path) -> Iterator[Any]:
    made: list[Prober] = []

    def make(inference: Any, **options: Any) -> Prober:
        prober = Prober(inference, data_dir=tmp_path, **options)
        made.append(prober)
        return prober

    yield make
    for prober in made:
        prober.close()


def make_machine(*, ram_percent: int = 50, serve: ServeState | None = None) -> MachineReport:
    return MachineReport(ram=Usage(ram_percent * GIB, 100 * GIB), disk=Usage(GIB, 10 * GIB), serve=serve)


def make_serve_state(*, written_at: dt.datetime = NOW, **pids: int | None) -> ServeState:
    children = tuple(ChildState(name=name, pid=pid, started_at=None) for name, pid in pids.items())
    return ServeState("http://localhost", 1, written_at.timestamp(), children)


GOOD = DatabaseReport(backed_up_at=NOW - dt.timedelta(hours=5), created_at=NOW - dt.timedelta(days=90))


def judge_with(
    *,
    database: DatabaseReport = GOOD,
    inference: InferenceStatus | None = None,
    machine: MachineReport | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[Health, tuple[str, ...]]:
    return judge(
        database,
        InferenceReport(inference or make_status()),
        machine or make_machine(),
        now=NOW,
        limits=limits,
    )


class TestJudge:
    def test_finds_nothing_where_everything_is_there(self) -> None:
        assert judge_with() == (Health.HEALTHY, ())

    @pytest.mark.parametrize(
        ("database", "reason"),
        [
            (replace(GOOD, problem="OperationalError"), "database_unavailable"),
            (replace(GOOD, is_locked=True), "database_locked"),
            (replace(GOOD, backed_up_at=NOW - dt.timedelta(hours=27)), "backup_stale"),
            (replace(GOOD, backed_up_at=None), "backup_stale"),
        ],
    )
    def test_names_what_the_database_lacks(self, database: DatabaseReport, reason: str) -> None:
        expected = Health.UNHEALTHY if reason == "database_unavailable" else Health.DEGRADED

        assert judge_with(database=database) == (expected, (reason,))

    def test_gives_a_new_site_time_for_its_first_backup(self) -> None:
        database = DatabaseReport(created_at=NOW - dt.timedelta(hours=25))

        assert judge_with(database=database) == (Health.HEALTHY, ())

    @pytest.mark.parametrize("role", ["stt", "llm", "tts"])
    @pytest.mark.parametrize("state", [RoleState.LOADING, RoleState.UNAVAILABLE])
    def test_is_unhealthy_without_a_role_of_calls(self, role: str, state: RoleState) -> None:
        assert judge_with(inference=make_status(**{role: state})) == (Health.UNHEALTHY, (f"{role}_{state.value}",))

    def test_is_degraded_without_the_encoder(self) -> None:
        found = judge_with(inference=make_status(encoder=RoleState.UNAVAILABLE))

        assert found == (Health.DEGRADED, ("encoder_unavailable",))

    def test_is_degraded_on_a_fallback(self) -> None:
        ready = make_status()
        roles = tuple(replace(r, reason="vllm: no device") if r.role is Role.LLM else r for r in ready.roles)

        assert judge_with(inference=replace(ready, roles=roles)) == (Health.DEGRADED, ("llm_on_fallback",))

    def test_is_unhealthy_while_inference_does_not_answer(self) -> None:
        found = judge(GOOD, InferenceReport(None, "no answer"), make_machine(), now=NOW)

        assert found == (Health.UNHEALTHY, ("inference_unreachable",))

    def test_is_degraded_where_ram_is_short(self) -> None:
        assert judge_with(machine=make_machine(ram_percent=91)) == (Health.DEGRADED, ("ram_short",))

    @pytest.mark.parametrize(("free_gib", "reasons"), [(2.0, ()), (0.15, ("vram_short",))])
    def test_measures_vram_by_what_the_engines_shares_leave(self, free_gib: float, reasons: tuple[str, ...]) -> None:
        # 22.4 of 24 GiB are the engines', 93 %.
        device = DeviceMemory("GPU", 24 * GIB, round(free_gib * GIB))
        inference = replace(make_status(), devices=(device,))

        assert judge_with(inference=inference, limits=Limits(shares_bytes=(round(22.4 * GIB),)))[1] == reasons

    def test_is_degraded_where_the_kv_cache_is_nearly_full(self) -> None:
        ready = make_status()
        roles = tuple(replace(role, figures={"kv_cache_use": 0.95}) for role in ready.roles)

        assert judge_with(inference=replace(ready, roles=roles))[1] == ("vram_short",)

    def test_goes_by_the_settings_of_alerts(self, settings: Any) -> None:
        settings.AVATAR_ALERT_MEMORY_PERCENT, settings.AVATAR_ALERT_BACKUP_HOURS = 40.0, 2.0

        assert judge_with(limits=read_limits())[1] == ("ram_short", "backup_stale")

    def test_names_a_process_that_is_not_running_if_the_supervisor_still_says_so(self) -> None:
        down = make_serve_state(web=10, worker=None)
        old = make_serve_state(written_at=NOW - dt.timedelta(hours=1), web=10, worker=None)

        assert judge_with(machine=make_machine(serve=down)) == (Health.DEGRADED, ("worker_down",))
        assert judge_with(machine=make_machine(serve=old)) == (Health.HEALTHY, ())

    def test_names_a_process_that_hangs(self) -> None:
        state = make_serve_state(web=10, worker=11)
        hanging = replace(state, children=tuple(replace(child, missed=3) for child in state.children[1:]))

        assert judge_with(machine=make_machine(serve=hanging)) == (Health.DEGRADED, ("worker_down",))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.django_db(transaction=True)
class TestProber:
    async def test_knows_nothing_before_the_first_probe(self, make_prober: Any) -> None:
        snapshot = make_prober(Inference(make_status())).snapshot

        assert (snapshot.health, snapshot.reasons) == (Health.UNHEALTHY, ("starting",))

    async def test_finds_a_site_that_is_there(self, make_prober: Any) -> None:
        snapshot = await make_prober(Inference(make_status())).probe()

        assert snapshot.database.problem == ""
        assert snapshot.inference.is_ready
        assert snapshot.health is not Health.UNHEALTHY
        kind, usage = snapshot.memory
        assert kind is MemoryKind.RAM
        assert 0 < usage.used < usage.total

    async def test_gives_up_on_an_inference_process_that_does_not_answer(
        self, make_prober: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(status, "INFERENCE_TIMEOUT_S", 0.01)

        snapshot = await make_prober(NeverAnswers()).probe()

        assert snapshot.inference.reason.startswith("no answer within")
        assert snapshot.health is Health.UNHEALTHY

    @pytest.mark.parametrize("error", [OperationalError("server closed the connection"), InterfaceError("closed")])
    async def test_names_a_database_that_is_away(
        self, make_prober: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def fail(now: dt.datetime) -> DatabaseReport:
            raise error

        monkeypatch.setattr(status, "read_database", fail)

        snapshot = await make_prober(Inference(make_status())).probe()

        assert snapshot.database.problem == type(error).__name__
        assert snapshot.reasons[0] == "database_unavailable"

    async def test_blocks_no_query_of_others_while_its_own_hangs(
        self, make_prober: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        released = threading.Event()
        monkeypatch.setattr(status, "DATABASE_TIMEOUT_S", 0.05)
        monkeypatch.setattr(status, "read_database", lambda now: released.wait(20))
        prober = make_prober(Inference(make_status()))

        first, second = await prober.probe(), await prober.probe()
        others = await User.objects.acount()
        released.set()

        assert first.reasons[0] == second.reasons[0] == "database_unavailable"
        assert others == 0

    async def test_is_unhealthy_once_it_has_stopped(self, make_prober: Any) -> None:
        clock = Clock()
        prober = make_prober(Inference(make_status()), clock=clock)
        await prober.probe()

        clock.now += MAX_AGE_S + 1

        assert (prober.snapshot.health, prober.snapshot.reasons) == (Health.UNHEALTHY, ("prober_stopped",))


@pytest.mark.django_db(transaction=True)
class TestReadDatabase:
    def test_counts_calls_of_processes_that_are_alive(self, alice: User) -> None:
        now = timezone.now()
        for state, age in (
            (CallState.ACTIVE, dt.timedelta()),
            (CallState.ACTIVE, STALE_AFTER),
            (CallState.WAITING, dt.timedelta()),
            (CallState.ENDING, dt.timedelta()),
        ):
            factories.create_live_call(alice, state=state, last_seen_at=now - age)

        report = read_database(now=now)

        assert (report.active, report.waiting, report.is_locked) == (1, 1, False)

    def test_knows_the_newest_backup_that_was_verified(self, db: None) -> None:
        now = timezone.now()
        for name, age_h, is_verified in (("old", 50, True), ("good", 20, True), ("unverified", 1, False)):
            began_at = now - dt.timedelta(hours=age_h)
            for kind in (RunKind.BACKUP, RunKind.VERIFICATION)[: 1 + is_verified]:
                BackupRun.objects.create(
                    kind=kind, state=RunState.DONE, name=name, started_at=began_at, finished_at=now
                )

        assert read_database(now=now).backed_up_at == now - dt.timedelta(hours=20)

    def test_finds_a_lock_that_another_connection_holds_and_waits_as_before_afterwards(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if connection.vendor != "sqlite":
            pytest.skip("PostgreSQL has no such lock")
        monkeypatch.setattr(status, "LOCK_TIMEOUT_S", 0.05)
        other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")

        locked = read_database(now=timezone.now())
        other.execute("ROLLBACK")
        free = read_database(now=timezone.now())
        other.close()
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout")
            assert cursor.fetchone() == (20_000,)

        assert (locked.is_locked, locked.problem, free.is_locked) == (True, "", False)


class TestIsSettled:
    @pytest.mark.parametrize(
        ("state", "expected"),
        [
            (RoleState.LOADING, False),
            (RoleState.WARMING, False),
            (RoleState.READY, True),
            (RoleState.UNAVAILABLE, True),
        ],
    )
    def test_when_no_role_is_under_way(self, state: RoleState, expected: bool) -> None:
        assert make_status(tts=state).is_settled is expected
