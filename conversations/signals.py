"""Removes the audio and the spools of a user who is deleted, by the admin or otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import transaction
from django.db.models.signals import pre_delete
from django.dispatch import receiver

from avatar_site.lib import sqlite_erasure
from avatar_site.lib.stored_files import list_files, remove_files
from conversations import spool
from conversations.models import AUDIO_ROOT, Conversation, Turn

if TYPE_CHECKING:
    from django.contrib.auth.models import User


@receiver(pre_delete, sender=settings.AUTH_USER_MODEL)
def remove_audio_of(instance: User, **kwargs: Any) -> None:
    turns = Turn.objects.filter(conversation__owner=instance).exclude(audio="")
    names = list(turns.values_list("audio", flat=True))
    folder = f"{AUDIO_ROOT}/{instance.pk}"
    # The user is deleted by then: a file that cannot be removed is logged and left to the sweep of orphans.
    transaction.on_commit(lambda: remove_files(names), robust=True)
    transaction.on_commit(lambda: remove_files(list(list_files(folder))), robust=True)
    conversations = list(Conversation.objects.filter(owner=instance).values_list("pk", flat=True))
    transaction.on_commit(lambda: spool.remove(conversations), robust=True)
    sqlite_erasure.erase_on_commit()
