"""The calls that are live now, on all machines."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from uuid import UUID

#: Between two heartbeats of a call.
HEARTBEAT_S = 15.0
#: Three heartbeats missed: the process of a call was killed, or its database was away.
STALE_AFTER = dt.timedelta(seconds=3 * HEARTBEAT_S)


class CallState(models.TextChoices):
    ACTIVE = "active", _("talking")
    #: In the waiting list. `began_at` is since when; it is set again when the call gets a place.
    WAITING = "waiting", _("waiting")
    #: It has no place any more: its turns are being saved, or an operator ends it.
    ENDING = "ending", _("ending")
    #: The same, because another connection of the same person goes on with its conversation.
    REPLACED = "replaced", _("replaced")


class LiveCallQuerySet(models.QuerySet["LiveCall"]):
    def fresh(self, now: dt.datetime) -> Self:
        """
        Those whose process is alive.

        One seen later than now is of before the clock was set back: the next heartbeat renews it, unless its process
        is gone.
        """
        return self.filter(last_seen_at__gt=now - STALE_AFTER, last_seen_at__lte=now + STALE_AFTER)

    def stale(self, now: dt.datetime) -> Self:
        return self.filter(Q(last_seen_at__lte=now - STALE_AFTER) | Q(last_seen_at__gt=now + STALE_AFTER))

    def entered(self, now: dt.datetime) -> Self:
        """Those with a place, and those that wait for one."""
        return self.fresh(now).filter(state__in=(CallState.ACTIVE, CallState.WAITING))

    def of_conversation(self, user_id: int, conversation_id: UUID) -> Self:
        return self.filter(user_id=user_id, conversation_id=conversation_id)

    def oldest_first(self) -> Self:
        return self.order_by("began_at", "pk")


class LiveCall(models.Model):
    """
    A call. Its web process updates `last_seen_at`; a row that was not for a while is of a process that was killed.
    """

    session_id = models.UUIDField(_("session"), primary_key=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("person"), on_delete=models.CASCADE, related_name="live_calls"
    )
    #: None: nothing of it is kept.
    conversation_id = models.UUIDField(_("conversation"), null=True, blank=True)
    state = models.CharField(_("state"), max_length=8, choices=CallState, default=CallState.ACTIVE)
    #: The web process that holds it: "<host>:<pid>".
    process = models.CharField(_("process"), max_length=64)
    began_at = models.DateTimeField(_("began at"))
    last_seen_at = models.DateTimeField(_("last seen at"))

    objects = LiveCallQuerySet.as_manager()

    class Meta:
        verbose_name = _("live call")
        verbose_name_plural = _("live calls")
        permissions = (("end_call", _("Can end calls, and log people out")),)
        indexes = (models.Index(fields=["state", "last_seen_at"]),)
        constraints = (models.CheckConstraint(condition=Q(state__in=CallState.values), name="call_state_is_known"),)

    def __str__(self) -> str:
        return str(self.session_id)
