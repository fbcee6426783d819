"""Deletes the files of a user's voices with the user, however the user is deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import transaction
from django.db.models.signals import pre_delete
from django.dispatch import receiver

from avatar_site.lib import sqlite_erasure
from avatar_site.lib.live_calls import tell_voice_changed
from avatar_site.lib.stored_files import delete_file
from voices import deletion, files
from voices.models import Preview, VoiceProfile

if TYPE_CHECKING:
    from django.contrib.auth.models import User


@receiver(pre_delete, sender=settings.AUTH_USER_MODEL)
def remove_voices_of(instance: User, **kwargs: Any) -> None:
    # Locked before their jobs are deleted: a worker that ends a job locks the voice first, too (`leases`).
    profiles = list(VoiceProfile.objects.owned_by(instance).select_for_update().order_by("pk"))
    # Their previews of other users' voices.
    previews = Preview.objects.filter(requested_by=instance).exclude(profile__owner=instance)
    names = list(previews.values_list("audio", flat=True))
    deletion.forget_in_log(profiles)
    for profile in profiles:
        tell_voice_changed(profile.pk)

    def remove_all() -> None:
        for profile in profiles:
            files.delete_folder(profile)
        for name in names:
            delete_file(name)
        sqlite_erasure.erase_on_commit()

    # The rows are gone; files that cannot be deleted now are found by `delete_orphans`. Other hooks still run.
    transaction.on_commit(remove_all, robust=True)
