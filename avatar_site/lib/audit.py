"""What operators opened that is not theirs: how it is written into Django's log, and found there again."""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django.db.models import Model
    from django.http import HttpRequest
    from django.utils.functional import _StrPromise


class Access(StrEnum):
    """What was opened: the beginning of the log's message. Rows have them, so they stay as they are."""

    CONVERSATION = "Opened what was said."
    TRANSCRIPTS = "read what was said in its recordings"
    RECORDING = "listened to recording"
    BACKUP = "Downloaded the database of backup"


LABELS: dict[Access, _StrPromise] = {
    Access.CONVERSATION: _("Opened what was said in a conversation"),
    Access.TRANSCRIPTS: _("Read what was said in the recordings of a voice"),
    Access.RECORDING: _("Listened to a recording"),
    Access.BACKUP: _("Downloaded the database of a backup"),
}


def log_access(
    request: HttpRequest,
    access: Access,
    *,
    of: Model | None,
    model: type[Model],
    detail: str = "",
    once_within: dt.timedelta | None = None,
) -> None:
    """
    Write down that the operator of this request opened content. Call it before the content is served.

    `of` is None where it is no row; `detail` then says which. With `once_within`, an entry of the same operator and
    content that is not older stands for this request too.
    """
    key: dict[str, Any] = {
        "user_id": request.user.pk or 0,
        "content_type": ContentType.objects.get_for_model(model),
        "object_id": str(of.pk) if of is not None else None,
        "action_flag": CHANGE,
        "change_message": f"{access} {detail}".strip(),
    }
    now = timezone.now()
    # One of later than now is of before the clock was set back.
    if once_within and LogEntry.objects.filter(**key, action_time__gt=now - once_within, action_time__lte=now).exists():
        return
    LogEntry.objects.create(**key, object_repr=(str(of) if of is not None else detail)[:200])


def find_access(message: str) -> Access | None:
    """Return what a message of the log says was opened; None if it says something else."""
    return next((access for access in Access if message.startswith(access)), None)


def is_access() -> Q:
    """Return the condition of entries that say that content was opened."""
    condition = Q()
    for access in Access:
        condition |= Q(change_message__startswith=access.value)
    return condition
