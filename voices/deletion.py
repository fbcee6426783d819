"""Deletes a voice in two phases: out of use at once, its files and rows once the storage can be reached."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction

from avatar_site.lib import sqlite_erasure
from avatar_site.lib.live_calls import tell_voice_changed
from voices import files, leases
from voices.models import Availability, Consent, JobKind, VoiceProfile

logger = logging.getLogger(__name__)


def begin(profile: VoiceProfile) -> None:
    """Stop using the voice for replies. Workers lose their leases, and remove files that they write later."""
    with transaction.atomic():
        VoiceProfile.objects.filter(pk=profile.pk).update(availability=Availability.DELETING)
        leases.cancel(profile.pk, *JobKind)
        tell_voice_changed(profile.pk)


def finish(profile: VoiceProfile) -> None:
    """
    Delete its files, then its rows.

    Raises OSError while the storage is away; then the rows are still there, and it can be called again.
    """
    files.delete_folder(profile)
    with transaction.atomic():
        voices = VoiceProfile.objects.filter(pk=profile.pk)
        # Locked, so that no recording with a consent of its own is added in between.
        voices.select_for_update().first()
        given = list(Consent.objects.of_voice(profile).values_list("pk", flat=True))
        voices.delete()
        Consent.objects.filter(pk__in=given).delete()
        forget_in_log([profile])
    try:
        # Again, for files that a worker wrote in between.
        files.delete_folder(profile)
    except OSError:
        logger.exception("files of voice %s, which is deleted, are left for `delete_orphans`", profile.pk)
    sqlite_erasure.erase_on_commit()


def finish_all() -> int:
    """Finish every deletion that has begun. Return how many were finished."""
    finished = 0
    for profile in VoiceProfile.objects.filter(availability=Availability.DELETING).order_by("created_at", "pk"):
        try:
            finish(profile)
        except OSError as error:
            logger.warning("voice %s cannot be deleted yet: %s", profile.pk, error)
        else:
            finished += 1
    return finished


def forget_in_log(profiles: Sequence[VoiceProfile]) -> None:
    """Remove the names of voices from the operators' log; who listened and who changed what stays."""
    entries = LogEntry.objects.filter(content_type=ContentType.objects.get_for_model(VoiceProfile))
    for profile in profiles:
        entries.filter(object_id=str(profile.pk)).update(object_repr=str(profile.pk))
