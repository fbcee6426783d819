"""
Leases on the jobs of voices: claimed with one conditional UPDATE, renewed by a heartbeat, swept when it stops.

A worker whose lease was taken away (the sweeper, a rebuild, `disable`, `delete`) writes nothing more. Whatever changes
a voice together with its jobs locks the voice's row first.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from django.db import IntegrityError, transaction
from django.db.models import F, Q
from django.utils import timezone

from voices.models import Availability, BuildCount, JobKind, JobState, State, Step, VoiceJob, VoiceProfile

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import QuerySet

logger = logging.getLogger(__name__)

#: Without a heartbeat for so long, the worker is taken for dead.
LOST_AFTER = timedelta(seconds=60)
#: A queued job that no worker has claimed for so long is handed out again: its message may be lost.
FORGOTTEN_AFTER = timedelta(minutes=5)
MAX_ATTEMPTS = 3


class LeaseLost(Exception):
    """Another worker has the job, or it was cancelled."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to do a job of a voice. `attempts` counts the claims since it was queued, this one included."""

    profile_id: uuid.UUID
    kind: JobKind
    token: uuid.UUID
    attempts: int

    @classmethod
    def claim(cls, profile_id: uuid.UUID, kind: JobKind) -> Self | None:
        """
        Claim the job if it is queued.

        None if another worker has it, it is done or cancelled, or the voice is gone. A fit also waits until its voice
        is built and no other fit runs.
        """
        token = uuid.uuid4()
        queued = VoiceJob.objects.filter(profile_id=profile_id, kind=kind, state=JobState.QUEUED)
        if kind is JobKind.FIT:
            queued = queued.filter(profile__in=VoiceProfile.objects.in_state(State.READY))
        try:
            with transaction.atomic():
                claimed = queued.update(
                    state=JobState.RUNNING,
                    step=Step.RECOGNISING if kind is JobKind.BUILD else "",
                    progress=0.0,
                    error="",
                    token=token,
                    claimed_at=timezone.now(),
                    attempts=F("attempts") + 1,
                )
        except IntegrityError:
            # The constraint: another fit runs.
            return None
        if not claimed:
            return None
        attempts = VoiceJob.objects.filter(token=token).values_list("attempts", flat=True).first()
        return None if attempts is None else cls(profile_id, kind, token, attempts)

    def renew(self, **fields: Any) -> None:
        """Send a heartbeat, and write `fields` of the job. Raises LeaseLost."""
        fields = {"claimed_at": timezone.now()} | fields
        held = VoiceJob.objects.filter(profile_id=self.profile_id, kind=self.kind, token=self.token)
        if not held.update(**fields):
            raise LeaseLost(f"{self.kind} of voice {self.profile_id}")

    def finish(self, **fields: Any) -> None:
        """End the job, and write the results to `fields` of the voice. Raises LeaseLost: then nothing is written."""
        with transaction.atomic():
            lock_profile(self.profile_id)
            self.renew(state=JobState.DONE, progress=1.0, token=None, claimed_at=None)
            VoiceProfile.objects.filter(pk=self.profile_id).update(**fields)
            if self.kind is JobKind.BUILD:
                BuildCount.objects.add_one()

    def fail(self, code: str) -> None:
        self.renew(state=JobState.FAILED, error=code, token=None)

    def give_back(self) -> None:
        """Queue the job again. It keeps its count of attempts."""
        self.renew(state=JobState.QUEUED, step=_first_step(self.kind), progress=0.0, token=None)


def do_job(profile_id: uuid.UUID, kind: JobKind, work: Callable[[Lease], None]) -> None:
    """
    Claim a job and do its `work`. Does nothing if the job cannot be claimed; ends when the lease is lost.

    Other exceptions of `work` propagate.
    """
    lease = Lease.claim(profile_id, kind)
    if lease is None:
        logger.info("%s of voice %s is not queued, or waits for another fit", kind, profile_id)
        return
    try:
        work(lease)
    except LeaseLost:
        logger.info("%s of voice %s was cancelled, or another worker has it", kind, profile_id)


def lock_profile(profile_id: uuid.UUID) -> VoiceProfile | None:
    """Lock the voice's row until the transaction ends. SQLite locked the whole file with BEGIN IMMEDIATE."""
    return VoiceProfile.objects.select_for_update().filter(pk=profile_id).first()


def queue(profile_id: uuid.UUID, kind: JobKind, *, now: datetime) -> bool:
    """
    Queue a job, whatever became of it before; a worker that does it loses its lease.

    False if the voice is disabled, being deleted or gone.
    """
    with transaction.atomic():
        profile = lock_profile(profile_id)
        if profile is None or profile.availability != Availability.AVAILABLE:
            return False
        VoiceJob.objects.update_or_create(
            profile=profile,
            kind=kind,
            defaults={
                "state": JobState.QUEUED,
                "step": _first_step(kind),
                "progress": 0.0,
                "error": "",
                "token": None,
                "claimed_at": now,
                "attempts": 0,
            },
        )
    return True


def cancel(profile_id: uuid.UUID, *kinds: JobKind) -> None:
    """Cancel the jobs of these kinds that wait or run."""
    jobs = VoiceJob.objects.filter(profile_id=profile_id, kind__in=kinds, state__in=JobState.active())
    jobs.update(state=JobState.CANCELLED, token=None, claimed_at=None)


def sweep(*, now: datetime) -> tuple[list[uuid.UUID], list[uuid.UUID]]:
    """
    Take jobs back from workers that have died, and find queued jobs that no worker has claimed.

    Return the voices to be built and those to be fitted: hand them to workers again. A job that was lost
    `MAX_ATTEMPTS` times fails: it may be what kills the workers.
    """
    lost = VoiceJob.objects.filter(state=JobState.RUNNING, claimed_at__lt=now - LOST_AFTER)
    failed = {"state": JobState.FAILED, "error": "worker_lost", "token": None, "claimed_at": now}
    if count := lost.filter(attempts__gte=MAX_ATTEMPTS).update(**failed):
        logger.error("%d jobs of voices failed: their workers died %d times", count, MAX_ATTEMPTS)
    for kind in JobKind:
        count = lost.filter(kind=kind).update(
            state=JobState.QUEUED,
            step=_first_step(kind),
            progress=0.0,
            token=None,
            claimed_at=now - FORGOTTEN_AFTER,
        )
        if count:
            logger.warning("the workers of %d voices died: %s is queued again", count, kind)
    is_forgotten = Q(claimed_at__isnull=True) | Q(claimed_at__lte=now - FORGOTTEN_AFTER)
    waiting = VoiceJob.objects.filter(is_forgotten, kind=JobKind.BUILD, state=JobState.QUEUED)
    return _hand_out(waiting, now), find_next_fits()


def find_next_fits() -> list[uuid.UUID]:
    """Return the voice that is to be fitted next, if none is being fitted."""
    fits = VoiceJob.objects.filter(kind=JobKind.FIT)
    if fits.filter(state=JobState.RUNNING).exists():
        return []
    queued = fits.filter(state=JobState.QUEUED, profile__in=VoiceProfile.objects.in_state(State.READY))
    return list(queued.order_by("claimed_at", "pk").values_list("profile_id", flat=True)[:1])


def _hand_out(waiting: QuerySet[VoiceJob], now: datetime) -> list[uuid.UUID]:
    """Note in each row that it is handed out now, so that the next sweep does not hand it out again at once."""
    ids = list(waiting.values_list("pk", "profile_id"))
    return [profile_id for pk, profile_id in ids if waiting.filter(pk=pk).update(claimed_at=now)]


def _first_step(kind: JobKind) -> str:
    return Step.QUEUED.value if kind is JobKind.BUILD else ""
