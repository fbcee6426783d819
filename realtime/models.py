"""The calls that are live now, on all machines."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _


class CallState(models.TextChoices):
    ACTIVE = "active", _("talking")
    #: In the list of those who wait for a place.
    WAITING = "waiting", _("waiting")


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

    class Meta:
        verbose_name = _("live call")
        verbose_name_plural = _("live calls")
        indexes = (models.Index(fields=["state", "last_seen_at"]),)

    def __str__(self) -> str:
        return str(self.session_id)
