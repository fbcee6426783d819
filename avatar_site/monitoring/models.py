"""Samples of how the site fares, and alerts."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from avatar_site.monitoring import sentences

if TYPE_CHECKING:
    from django.contrib.auth.models import User


class Resolution(models.TextChoices):
    MINUTE = "minute", _("minute")
    HOUR = "hour", _("hour")


class Sample(models.Model):
    """What one source measured in a minute; after a week, what all minutes of an hour were."""

    #: "system", or a web process: "web <host>:<pid>".
    source = models.CharField(_("source"), max_length=64)
    resolution = models.CharField(_("resolution"), max_length=8, choices=Resolution, default=Resolution.MINUTE)
    #: A whole minute or hour.
    began_at = models.DateTimeField(_("began at"))
    #: See `samples.SampleValues`.
    values = models.JSONField(_("values"))

    class Meta:
        verbose_name = _("sample")
        verbose_name_plural = _("samples")
        constraints = (
            models.UniqueConstraint(fields=["resolution", "began_at", "source"], name="one_sample_per_source_and_time"),
        )

    def __str__(self) -> str:
        return f"{self.source} {self.began_at:%Y-%m-%d %H:%M} {self.resolution}"


class Severity(models.TextChoices):
    WARNING = "warning", _("warning")
    ERROR = "error", _("error")


class AlertState(models.TextChoices):
    OPEN = "open", _("open")
    ACKNOWLEDGED = "acknowledged", _("acknowledged")
    RESOLVED = "resolved", _("resolved")


class AlertQuerySet(models.QuerySet["Alert"]):
    def unresolved(self) -> Self:
        """Those that are open or acknowledged."""
        return self.exclude(state=AlertState.RESOLVED)

    def acknowledge(self, *, by: User, now: dt.datetime) -> int:
        """Mark those that are open as known to a person, and return how many there were."""
        return self.filter(state=AlertState.OPEN).update(
            state=AlertState.ACKNOWLEDGED, acknowledged_at=now, acknowledged_by=by
        )


class Alert(models.Model):
    """A condition that held, from when to when. At most one unresolved alert for a condition and subject."""

    #: A key of `conditions.CONDITIONS`.
    condition = models.CharField(_("condition"), max_length=48)
    #: Of what: a process, a role, a disk. Empty where there is only one.
    subject = models.CharField(_("subject"), max_length=128, blank=True)
    severity = models.CharField(_("severity"), max_length=8, choices=Severity)
    #: The figures of the sentence that describes it, which is made in the reader's language.
    figures = models.JSONField(_("figures"), default=dict)
    state = models.CharField(_("state"), max_length=12, choices=AlertState, default=AlertState.OPEN)
    opened_at = models.DateTimeField(_("opened at"))
    last_seen_at = models.DateTimeField(_("last seen at"))
    acknowledged_at = models.DateTimeField(_("acknowledged at"), null=True, blank=True)
    acknowledged_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("acknowledged by"),
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
    )
    resolved_at = models.DateTimeField(_("resolved at"), null=True, blank=True)
    #: When e-mail or webhook was told last. None: not yet, or neither is set.
    notified_at = models.DateTimeField(_("notified at"), null=True, blank=True)
    #: What each of them was told last: "warning", "error" or "resolved".
    told = models.JSONField(default=dict, editable=False)

    objects = AlertQuerySet.as_manager()

    class Meta:
        verbose_name = _("alert")
        verbose_name_plural = _("alerts")
        constraints = (
            models.UniqueConstraint(
                fields=["condition", "subject"],
                condition=~Q(state=AlertState.RESOLVED),
                name="one_unresolved_alert_per_condition",
            ),
        )

    def __str__(self) -> str:
        """Return the sentence that describes it, in the reader's language."""
        return sentences.describe(self.condition, self.subject, self.figures)
