"""Voices that were made for other engines than those that run now: a GPU has come, or has gone."""

from __future__ import annotations

import logging
import uuid
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db.models import Q

from avatar_site.lib.inference_client import ask
from inference.interfaces import Inference, InferenceError, InferenceStatus, Role, RoleState
from voices import leases
from voices.models import Kind, State, VoiceProfile

if TYPE_CHECKING:
    from voices.models import VoiceProfileQuerySet

logger = logging.getLogger(__name__)

#: A voice whose renewal failed is tried again after so long: what failed may be over, and may be not.
AGAIN_AFTER = timedelta(hours=6)
STATUS_TIMEOUT_S = 10.0
#: What trying again changes nothing about.
_FINAL = ("no_speech", "recording_missing")


def take_outdated(*, inference: Inference, now: datetime) -> list[uuid.UUID]:
    """
    Let those voices wait to be made anew, from their recordings, and return them: they are to be handed to workers.

    Until each is done it is spoken as well as the engine can (docs/voices.md). What was fitted is given up where an
    engine clones. None of them while the engine that speaks cannot be had.
    """
    try:
        status = ask(inference.status(), timeout_s=STATUS_TIMEOUT_S)
    except (InferenceError, TimeoutError) as error:
        logger.info("no engine to renew voices for: %s", error)
        return []
    if not any(role.role is Role.TTS and role.state is RoleState.READY for role in status.roles):
        return []
    outdated = list(find_outdated(status, now=now).values_list("pk", "kind"))
    taken = []
    for profile_id, kind in outdated:
        # Meanwhile it may have been disabled.
        if leases.make_again(VoiceProfile.objects.filter(pk=profile_id), now=now):
            logger.info("voice %s was %s by another engine: made anew", profile_id, kind)
            taken.append(profile_id)
    return taken


def find_outdated(status: InferenceStatus, *, now: datetime) -> VoiceProfileQuerySet:
    """
    Matched ones that could be cloned, or cloned ones where nothing clones.

    Those whose renewal has failed are among them again after a while.
    """
    is_due = Q(claimed_at__isnull=True) | Q(claimed_at__lte=now - AGAIN_AFTER)
    failed = Q(state=State.FAILED, version__gt=0) & is_due & ~Q(error_code__in=_FINAL)
    made = VoiceProfile.objects.filter(Q(state=State.READY) | failed, owner__isnull=False)
    if status.clones:
        # Without the words of its clip a voice is matched there as well.
        return made.filter(kind=Kind.MATCHED).exclude(clip_transcript="")
    return made.filter(kind=Kind.CLONED)
