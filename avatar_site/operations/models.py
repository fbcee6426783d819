"""What operators see of backups and restores, and the outbox of the tombstone log."""

from __future__ import annotations

from typing import Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _


class RunKind(models.TextChoices):
    BACKUP = "backup", _("backup")
    VERIFICATION = "verification", _("verification")


class RunState(models.TextChoices):
    RUNNING = "running", _("running")
    DONE = "done", _("done")
    FAILED = "failed", _("failed")


class BackupRunQuerySet(models.QuerySet["BackupRun"]):
    def newest_first(self) -> Self:
        return self.order_by("-started_at", "-pk")

    def verified_nights(self) -> Self:
        """Nightly backups that were restored and compared. A killed or failed verification does not count."""
        verified = self.model.objects.filter(kind=RunKind.VERIFICATION, state=RunState.DONE).values("name")
        return self.filter(kind=RunKind.BACKUP, state=RunState.DONE, reason="nightly", name__in=verified)


class BackupRun(models.Model):
    """One run of a backup or a verification: the request, and the result."""

    kind = models.CharField(_("kind"), max_length=16, choices=RunKind)
    state = models.CharField(_("state"), max_length=8, choices=RunState, default=RunState.RUNNING)
    #: Of the backup; empty while it has none.
    name = models.CharField(_("backup"), max_length=32, blank=True)
    reason = models.CharField(_("reason"), max_length=24, blank=True)
    #: None: by the schedule or on the command line.
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("requested by"),
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
    )
    started_at = models.DateTimeField(_("started at"))
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)
    stored_bytes = models.PositiveBigIntegerField(_("bytes written"), default=0)
    problem = models.TextField(_("problem"), blank=True)

    objects = BackupRunQuerySet.as_manager()

    class Meta:
        verbose_name = _("backup run")
        verbose_name_plural = _("backup runs")
        permissions = (
            ("start_backup", _("Can start a backup")),
            ("download_backup", _("Can download backups, with all that people said")),
        )
        indexes = (models.Index(fields=["-started_at"], name="backup_run_by_age"),)
        constraints = (
            models.CheckConstraint(condition=Q(kind__in=RunKind.values), name="backup_run_kind_is_known"),
            models.CheckConstraint(condition=Q(state__in=RunState.values), name="backup_run_state_is_known"),
            models.CheckConstraint(
                condition=Q(state=RunState.RUNNING) | Q(finished_at__isnull=False),
                name="backup_run_that_ended_has_its_time",
            ),
        )

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.started_at:%Y-%m-%d %H:%M}"


class RestoreQuerySet(models.QuerySet["Restore"]):
    def unconfirmed(self) -> Self:
        """Those after which an operator has not confirmed yet that the state is the right one."""
        return self.filter(confirmed_at=None)


class Restore(models.Model):
    """A restore of this database. Until it is confirmed, no sweep removes audio that no row names."""

    name = models.CharField(_("backup"), max_length=32)
    restored_at = models.DateTimeField(_("restored at"))
    confirmed_at = models.DateTimeField(_("confirmed at"), null=True, blank=True)
    #: The backup of the state before it; empty if that could not be read.
    safety_name = models.CharField(_("safety backup"), max_length=32, blank=True)

    objects = RestoreQuerySet.as_manager()

    class Meta:
        verbose_name = _("restore")
        verbose_name_plural = _("restores")
        indexes = (
            models.Index(fields=["restored_at"], name="restore_unconfirmed", condition=Q(confirmed_at__isnull=True)),
        )

    def __str__(self) -> str:
        return f"{self.name}, {self.restored_at:%Y-%m-%d %H:%M}"


class Tombstone(models.Model):
    """
    A deletion or revocation on its way to the tombstone log. Triggers write it; see `tombstones`.

    `values` are JSON: the changed columns, or what identifies a deleted row besides its key.
    """

    id = models.BigAutoField(primary_key=True)
    #: ISO 8601 in UTC, as both databases write it.
    at = models.CharField(_("at"), max_length=32)
    table = models.CharField(_("table"), max_length=64)
    key = models.CharField(_("key"), max_length=64)
    is_deletion = models.BooleanField(_("is a deletion"))
    values = models.TextField(_("values"), blank=True)

    class Meta:
        verbose_name = _("tombstone")
        verbose_name_plural = _("tombstones")

    def __str__(self) -> str:
        return f"{self.table} {self.key}"
