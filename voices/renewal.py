"""Voices that were made for other engines than those that run now: a GPU has come, or has gone."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from asgiref.sync import async_to_sync

from inference.interfaces import Inference, InferenceError, InferenceStatus, Role, RoleState
from voices import services
from voices.models import Kind, State, VoiceProfile

if TYPE_CHECKING:
    from voices.models import VoiceProfileQuerySet

logger = logging.getLogger(__name__)


def renew(*, inference: Inference) -> int:
    """
    Have those voices made anew, from their recordings. Until each is done it sounds as before. Return how many.

    What was fitted is given up where an engine clones. Does nothing while the engine that speaks cannot be had.
    """
    try:
        status = async_to_sync(_ask)(inference)
    except InferenceError as error:
        logger.info("no engine to renew voices for: %s", error)
        return 0
    if not any(role.role is Role.TTS and role.state is RoleState.READY for role in status.roles):
        return 0
    profiles = list(find_outdated(status))
    for profile in profiles:
        logger.info("voice %s was %s by another engine: made anew", profile.pk, profile.kind)
        services.extract_again(profile=profile)
    return len(profiles)


def find_outdated(status: InferenceStatus) -> VoiceProfileQuerySet:
    """Matched ones that could be cloned, or cloned ones where nothing clones."""
    ready = VoiceProfile.objects.filter(owner__isnull=False, state=State.READY)
    if status.clones:
        # Without the words of its clip a voice is matched there as well.
        return ready.filter(kind=Kind.MATCHED).exclude(clip_transcript="")
    return ready.filter(kind=Kind.CLONED)


async def _ask(inference: Inference) -> InferenceStatus:
    try:
        return await inference.status()
    finally:
        # This loop's connection; the client itself stays.
        await inference.close()
