from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection
from django.utils import timezone

from tests import factories
from voices import leases, services
from voices.leases import Lease, LeaseLost
from voices.models import BuildCount, JobKind, VoiceJob, VoiceProfile


@pytest.fixture
def queued_profile(alice: User) -> VoiceProfile:
    """Built, and queued to be fitted."""
    profile = factories.create_voice_profile(alice)
    services.start_fitting(profile=profile)
    return profile


def build(owner: User) -> VoiceProfile:
    profile = factories.upload_voice(owner)
    lease = Lease.claim(profile.pk, JobKind.BUILD)
    assert lease is not None
    lease.finish(version=1, engine_voice="zf_xiaoxiao")
    return profile


@pytest.mark.django_db(transaction=True)
class TestClaimAtOnce:
    def test_of_fits_is_won_by_one_of_two_at_once(self, alice: User) -> None:
        profiles = [factories.create_voice_profile(alice) for _ in range(2)]
        for profile in profiles:
            factories.set_job(profile, "fit", state="queued")
        both_looked = threading.Barrier(2, timeout=10)

        def claim(profile: VoiceProfile) -> Lease | None:
            has_waited = False

            def wait_for_the_other(execute: Any, sql: str, *arguments: Any) -> Any:
                nonlocal has_waited
                if sql.startswith(("BEGIN", "UPDATE")) and not has_waited:
                    has_waited = True
                    both_looked.wait()
                return execute(sql, *arguments)

            try:
                with connection.execute_wrapper(wait_for_the_other):
                    return Lease.claim(profile.pk, JobKind.FIT)
            finally:
                connection.close()

        with ThreadPoolExecutor(2) as threads:
            claimed = list(threads.map(claim, profiles))

        assert sorted(lease is None for lease in claimed) == [False, True]
        assert sorted(factories.read_fit_state(profile) for profile in profiles) == ["queued", "running"]

    def test_of_fits_is_one_by_a_constraint_of_the_database(self, alice: User) -> None:
        factories.set_job(factories.create_voice_profile(alice), "fit", state="running")
        other = factories.create_voice_profile(alice)

        with pytest.raises(IntegrityError):
            factories.set_job(other, "fit", state="running")


def do_at_once(*changes: tuple[Callable[[], Any], tuple[str, ...]]) -> list[str]:
    """
    Do changes in threads of their own. Each waits for the others before its first statement that begins so.

    No longer than a second: where locks are taken in one order, the others cannot get there.
    """
    all_there = threading.Barrier(len(changes), timeout=1)

    def run(change: Callable[[], Any], beginnings: tuple[str, ...]) -> str:
        has_waited = False

        def wait_for_the_others(execute: Any, sql: str, *arguments: Any) -> Any:
            nonlocal has_waited
            if sql.startswith(beginnings) and not has_waited:
                has_waited = True
                with contextlib.suppress(threading.BrokenBarrierError):
                    all_there.wait()
            return execute(sql, *arguments)

        try:
            with connection.execute_wrapper(wait_for_the_others):
                change()
        except LeaseLost:
            return "lost"
        finally:
            connection.close()
        return "done"

    with ThreadPoolExecutor(len(changes)) as threads:
        return list(threads.map(run, *zip(*changes, strict=True)))


@pytest.mark.django_db(transaction=True)
class TestFinishAndDisableAtOnce:
    def test_neither_deadlock_nor_write_half(self, alice: User) -> None:
        profile = factories.create_voice_profile(alice)
        factories.set_job(profile, "fit", state="queued")
        lease = Lease.claim(profile.pk, JobKind.FIT)
        assert lease is not None
        began = ("BEGIN", "UPDATE", "SELECT")

        finished, disabled = do_at_once(
            (lambda: lease.finish(version=7), began),
            (lambda: services.disable(profile=profile), began),
        )

        profile.refresh_from_db()
        assert (profile.state, disabled) == ("disabled", "done")
        expected = (7, "done") if finished == "done" else (1, "cancelled")
        assert (profile.version, factories.read_fit_state(profile)) == expected


@pytest.mark.django_db(transaction=True)
class TestFinishAndDeleteTheOwnerAtOnce:
    def test_neither_deadlock_nor_leave_anything(self, alice: User) -> None:
        profile = factories.create_voice_profile(alice)
        factories.set_job(profile, "fit", state="queued")
        lease = Lease.claim(profile.pk, JobKind.FIT)
        assert lease is not None

        finished, deleted = do_at_once(
            (lambda: lease.finish(version=7), ('UPDATE "voices_voicejob"',)),
            (alice.delete, ('DELETE FROM "voices_voiceprofile"',)),
        )

        assert finished in ("done", "lost")
        assert deleted == "done"
        assert not VoiceProfile.objects.filter(pk=profile.pk).exists()
        assert not VoiceJob.objects.exists()


class TestClaim:
    def test_of_builds_is_not_limited_to_one_voice(self, alice: User) -> None:
        for _ in range(2):
            profile = factories.upload_voice(alice)
            assert Lease.claim(profile.pk, JobKind.BUILD) is not None
            assert Lease.claim(profile.pk, JobKind.BUILD) is None

    def test_of_a_fit_waits_until_the_voice_is_built(self, queued_profile: VoiceProfile) -> None:
        services.rebuild(profile=queued_profile)
        assert Lease.claim(queued_profile.pk, JobKind.FIT) is None
        assert leases.find_next_fits() == []

        factories.set_job(queued_profile, "build", state="done")
        assert leases.find_next_fits() == [queued_profile.pk]
        assert Lease.claim(queued_profile.pk, JobKind.FIT) is not None


class TestLease:
    @pytest.mark.parametrize("change", [services.disable, services.cancel_fitting, services.delete_voice_profile])
    def test_of_a_fit_is_lost_when_its_owner_or_operator_ends_it(
        self, queued_profile: VoiceProfile, change: Any
    ) -> None:
        lease = Lease.claim(queued_profile.pk, JobKind.FIT)
        assert lease is not None
        lease.renew(progress=0.5)

        change(profile=queued_profile)

        for write in (lease.renew, lease.give_back, lambda: lease.fail("internal"), lambda: lease.finish(version=7)):
            with pytest.raises(LeaseLost):
                write()
        assert not VoiceProfile.objects.filter(version=7).exists()

    def test_that_ended_writes_the_voice_and_the_job(self, queued_profile: VoiceProfile) -> None:
        lease = Lease.claim(queued_profile.pk, JobKind.FIT)
        assert lease is not None

        lease.finish(version=7)

        queued_profile.refresh_from_db()
        job = queued_profile.fit_job
        assert (queued_profile.version, job.state, job.progress, job.token) == (7, "done", 1.0, None)

    def test_is_needed_by_a_running_job(self, queued_profile: VoiceProfile) -> None:
        with pytest.raises(IntegrityError):
            VoiceJob.objects.filter(profile=queued_profile).update(state="running", token=None)


class TestBuildCount:
    def test_counts_each_build_and_survives_the_voice(self, alice: User) -> None:
        assert BuildCount.objects.read() == 0
        profile = build(alice)
        build(alice)
        services.rebuild(profile=profile)
        lease = Lease.claim(profile.pk, JobKind.BUILD)
        assert lease is not None
        lease.finish(version=2)

        services.delete_voice_profile(profile=profile)

        assert BuildCount.objects.read() == 3

    def test_leaves_out_fits_and_what_was_cancelled(self, queued_profile: VoiceProfile, alice: User) -> None:
        fit = Lease.claim(queued_profile.pk, JobKind.FIT)
        assert fit is not None
        fit.finish(version=7)
        cancelled = factories.upload_voice(alice)
        lease = Lease.claim(cancelled.pk, JobKind.BUILD)
        assert lease is not None
        services.disable(profile=cancelled)

        with pytest.raises(LeaseLost):
            lease.finish(version=1)

        assert BuildCount.objects.read() == 0


class TestSweep:
    """Of fits; that of builds is tested with their job."""

    def test_queues_the_fit_of_a_worker_that_died(self, queued_profile: VoiceProfile) -> None:
        lease = Lease.claim(queued_profile.pk, JobKind.FIT)
        assert lease is not None

        assert leases.sweep(now=timezone.now()) == ([], [])
        later = timezone.now() + leases.LOST_AFTER + timedelta(seconds=1)
        assert leases.sweep(now=later) == ([], [queued_profile.pk])

        with pytest.raises(LeaseLost):
            lease.renew()

    def test_fails_a_fit_that_kills_every_worker(self, queued_profile: VoiceProfile) -> None:
        later = timezone.now()
        for _ in range(leases.MAX_ATTEMPTS):
            assert Lease.claim(queued_profile.pk, JobKind.FIT) is not None
            later += leases.LOST_AFTER * 10
            leases.sweep(now=later)

        assert queued_profile.fit_job.error == "worker_lost"
        assert (factories.read_fit_state(queued_profile), queued_profile.state) == ("failed", "ready")
