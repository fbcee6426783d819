"""Rebuilds voices that were built for other engines than those that run now: a GPU came, or went."""

from __future__ import annotations

import logging
import uuid
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db.models import Q

from avatar_site.lib.inference_client import ask
from inference.interfaces import Inference, InferenceError, InferenceStatus, Role, RoleState
from voices import leases
from voices.models import Availability, JobKind, JobState, Kind, VoiceJob, VoiceProfile

if TYPE_CHECKING:
    from voices.models import VoiceProfileQuerySet

logger = logging.getLogger(__name__)

#: A renewal that failed is tried again after so long.
AGAIN_AFTER = timedelta(hours=6)
STATUS_TIMEOUT_S = 10.0
#: Errors that another attempt would repeat.
_FINAL = ("no_speech", "recording_missing")


def queue_outdated(*, inference: Inference, now: datetime) -> list[uuid.UUID]:
    """
    Queue those voices to be rebuilt from their recordings, and return them: hand them to workers.

    Until each is built it is spoken as well as the engine can (docs/voices.md). A fitted style is discarded where an
    engine clones. Queues none while the text-to-speech engine is unavailable.
    """
    try:
        status = ask(inference.status(), timeout_s=STATUS_TIMEOUT_S)
    except (InferenceError, TimeoutError) as error:
        logger.info("no engine to renew voices for: %s", error)
        return []
    if not any(role.role is Role.TTS and role.state is RoleState.READY for role in status.roles):
        return []
    queued = []
    for profile_id, kind in list(find_outdated(status, now=now).values_list("pk", "kind")):
        if leases.queue(profile_id, JobKind.BUILD, now=now):
            logger.info("voice %s was %s by another engine: queued to be rebuilt", profile_id, kind)
            queued.append(profile_id)
    return queued


def find_outdated(status: InferenceStatus, *, now: datetime) -> VoiceProfileQuerySet:
    """
    Return matched voices that could be cloned, or cloned ones where no engine clones.

    Those whose renewal failed are among them again after `AGAIN_AFTER`.
    """
    is_due = Q(claimed_at__isnull=True) | Q(claimed_at__lte=now - AGAIN_AFTER)
    failed = Q(is_due, state=JobState.FAILED, profile__version__gt=0) & ~Q(error__in=_FINAL)
    builds = VoiceJob.objects.filter(Q(state=JobState.DONE) | failed, kind=JobKind.BUILD)
    built = VoiceProfile.objects.filter(
        availability=Availability.AVAILABLE, owner__isnull=False, pk__in=builds.values("profile")
    )
    if status.clones:
        # Without a transcript of its clip a voice is matched on an engine that clones as well.
        return built.filter(kind=Kind.MATCHED).exclude(clip_transcript="")
    return built.filter(kind=Kind.CLONED)
