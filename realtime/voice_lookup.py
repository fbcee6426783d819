"""Looks up the voices of one call: by profile, for a user who may be answered in it now."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from uuid import UUID

from channels.db import database_sync_to_async
from django.db import Error as AnyDatabaseError

from inference.audio.decode import AudioError
from inference.interfaces import Quality
from realtime.call.voice import Voice, VoiceUnreadable
from voices.models import VoiceProfile
from voices.services import read_preference
from voices.voice_spec import read_voice_spec

if TYPE_CHECKING:
    from django.contrib.auth.models import User

logger = logging.getLogger(__name__)


async def find_voice(user: User, voice_profile_id: UUID | None) -> Voice | None:
    """Return the voice, the default one for None; None if the user has no such voice. Raises VoiceUnreadable."""
    if voice_profile_id is None:
        return Voice()
    voice: Voice | None = await database_sync_to_async(read_voice)(user, voice_profile_id)
    return voice


async def find_preferred_voice(user: User) -> tuple[Voice, Quality]:
    """Return the voice and the quality that the user prefers. A voice that cannot be had now is passed over."""
    preference = await database_sync_to_async(read_preference)(user=user)
    try:
        voice = await find_voice(user, preference.profile_id)
    except VoiceUnreadable:
        voice = None
    return voice or Voice(), Quality(preference.quality)


def read_voice(user: User, voice_profile_id: UUID) -> Voice | None:
    """
    Read a voice that the user may be answered in now; None if there is none. Slow: it may read a file.

    Raises VoiceUnreadable while the database or the storage is away, or when its clip is damaged.
    """
    try:
        profile = VoiceProfile.objects.usable_by(user).filter(pk=voice_profile_id).first()
        if profile is None:
            return None
        spec = read_voice_spec(profile)
    except (AnyDatabaseError, OSError, AudioError) as error:
        logger.exception("voice %s cannot be read", voice_profile_id)
        raise VoiceUnreadable(str(voice_profile_id)) from error
    return Voice(profile.pk, spec.engine_voice, spec.style, spec.reference, profile.version)
