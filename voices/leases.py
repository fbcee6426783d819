"""
Who works on a voice. Work is taken with one conditional UPDATE; whoever loses the claim writes nothing more.

A holder that is not heard of for `LOST_AFTER` is taken for dead: see `requeue_lost`.
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

from voices.models import FittingState, State, Step, VoiceProfile

if TYPE_CHECKING:
    from voices.models import VoiceProfileQuerySet

logger = logging.getLogger(__name__)

LOST_AFTER = timedelta(seconds=60)
#: Work that was handed to a worker and begun by none for so long is handed out again: its message may be lost.
FORGOTTEN_AFTER = timedelta(minutes=5)
MAX_ATTEMPTS = 3


class ClaimLost(Exception):
    """Another worker has taken the work over, or it is not wanted any more."""


@dataclass(frozen=True, slots=True)
class ExtractionClaim:
    """The right to make a voice."""

    profile_id: uuid.UUID
    token: uuid.UUID

    @classmethod
    def take(cls, profile_id: uuid.UUID) -> Self | None:
        """Take the work if it waits to be taken; None if somebody has it, it is done, or the voice is gone."""
        claim = cls(profile_id, uuid.uuid4())
        taken = VoiceProfile.objects.filter(pk=profile_id, state=State.PENDING).update(
            state=State.EXTRACTING,
            step=Step.RECOGNISING,
            progress=0.0,
            error_code="",
            claim=claim.token,
            claimed_at=timezone.now(),
            attempts=F("attempts") + 1,
        )
        return claim if taken else None

    def update(self, **fields: Any) -> None:
        """Write to the voice, and say that the work goes on. Raises ClaimLost."""
        fields = {"claimed_at": timezone.now()} | fields
        if not VoiceProfile.objects.filter(pk=self.profile_id, claim=self.token).update(**fields):
            raise ClaimLost(f"making voice {self.profile_id}")

    def fail(self, code: str) -> None:
        self.update(state=State.FAILED, error_code=code, claim=None)

    def give_back(self) -> None:
        """Let it be taken again later."""
        self.update(state=State.PENDING, step=Step.QUEUED, progress=0.0, claim=None)


@dataclass(frozen=True, slots=True)
class FittingClaim:
    """The right to fit a voice."""

    profile_id: uuid.UUID
    token: uuid.UUID

    @classmethod
    def take(cls, profile_id: uuid.UUID) -> Self | None:
        """Take the work if it waits to be taken and no other fitting is under way."""
        claim = cls(profile_id, uuid.uuid4())
        queued = VoiceProfile.objects.filter(pk=profile_id, state=State.READY, fitting_state=FittingState.QUEUED)
        try:
            with transaction.atomic():
                taken = queued.update(
                    fitting_state=FittingState.RUNNING,
                    fitting_progress=0.0,
                    fitting_claim=claim.token,
                    fitting_claimed_at=timezone.now(),
                )
        except IntegrityError:
            # The constraint: another one runs.
            return None
        return claim if taken else None

    def update(self, **fields: Any) -> None:
        """Write to the voice, and say that the work goes on. Raises ClaimLost; so it does when it was cancelled."""
        fields = {"fitting_claimed_at": timezone.now()} | fields
        if not VoiceProfile.objects.filter(pk=self.profile_id, fitting_claim=self.token).update(**fields):
            raise ClaimLost(f"fitting voice {self.profile_id}")

    def fail(self) -> None:
        self.update(fitting_state=FittingState.FAILED, fitting_claim=None, fitting_claimed_at=None)


def make_again(voices: VoiceProfileQuerySet, *, now: datetime) -> int:
    """
    Let voices wait to be made, whatever has become of them so far, and return how many.

    A worker that works on one loses the claim. Those that are disabled or being deleted are left so.
    """
    return _make_again(voices.exclude(state__in=State.silent()), now)


def enable(voices: VoiceProfileQuerySet, *, now: datetime) -> int:
    """Let disabled voices wait to be made, and return how many."""
    return _make_again(voices.filter(state=State.DISABLED), now)


def _make_again(voices: VoiceProfileQuerySet, now: datetime) -> int:
    return voices.update(
        state=State.PENDING,
        step=Step.QUEUED,
        progress=0.0,
        error_code="",
        claim=None,
        claimed_at=now,
        attempts=0,
        is_outdated=True,
    )


def requeue_lost(*, now: datetime) -> tuple[list[uuid.UUID], list[uuid.UUID]]:
    """
    Take work back from workers that have died, and find work that nobody began.

    Return the voices to be made and those to be fitted: they are to be handed to workers again. Work that was lost
    `MAX_ATTEMPTS` times fails: it may be what kills the workers.
    """
    lost = VoiceProfile.objects.filter(state=State.EXTRACTING, claimed_at__lt=now - LOST_AFTER)
    given_up = {"state": State.FAILED, "error_code": "worker_lost", "claim": None, "claimed_at": now}
    if count := lost.filter(attempts__gte=MAX_ATTEMPTS).update(**given_up):
        logger.error("%d voices are given up: their workers died %d times", count, MAX_ATTEMPTS)
    if count := lost.update(
        state=State.PENDING, step=Step.QUEUED, progress=0.0, claim=None, claimed_at=now - FORGOTTEN_AFTER
    ):
        logger.warning("the workers of %d voices have died: they are made anew", count)
    waiting = Q(claimed_at__isnull=True) | Q(claimed_at__lte=now - FORGOTTEN_AFTER)
    to_make = _hand_out(VoiceProfile.objects.filter(waiting, state=State.PENDING), "claimed_at", now)

    VoiceProfile.objects.filter(fitting_state=FittingState.RUNNING, fitting_claimed_at__lt=now - LOST_AFTER).update(
        fitting_state=FittingState.QUEUED, fitting_claim=None, fitting_claimed_at=now - FORGOTTEN_AFTER
    )
    return to_make, next_fittings(now=now)


def next_fittings(*, now: datetime) -> list[uuid.UUID]:
    """The voice whose turn it is to be fitted, if none is being fitted."""
    if VoiceProfile.objects.filter(fitting_state=FittingState.RUNNING).exists():
        return []
    queued = VoiceProfile.objects.filter(fitting_state=FittingState.QUEUED, state=State.READY)
    return list(queued.order_by("fitting_claimed_at", "pk").values_list("pk", flat=True)[:1])


def _hand_out(waiting: Any, field: str, now: datetime) -> list[uuid.UUID]:
    """Note for each that it was handed out now, so that the next look does not hand it out again at once."""
    ids = list(waiting.values_list("pk", flat=True))
    return [pk for pk in ids if waiting.filter(pk=pk).update(**{field: now})]
