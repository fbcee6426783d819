"""
Backups for operators: what there is, whether it was restored somewhere, start one, take one along. No restore.

The list comes from the target; the runs below it from the database.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.template.defaultfilters import filesizeformat
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.timesince import timesince
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST
from unfold.admin import ModelAdmin

from avatar_site.lib.admin import ListedLookupsMixin, ReadOnlyMixin
from avatar_site.lib.audit import Access, log_access
from avatar_site.operations import maintenance, requests
from avatar_site.operations.backups import listing, manifest, restoring
from avatar_site.operations.backups.download import Download
from avatar_site.operations.backups.targets import TargetError
from avatar_site.operations.models import BackupRun, Restore, RunKind, RunState

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from avatar_site.operations.backups.catalogue import ListedBackup
    from avatar_site.operations.backups.listing import Listing

START = "operations.start_backup"
DOWNLOAD = "operations.download_backup"
CONFIRM = "operations.change_restore"
#: A page does not wait longer for the target.
LIST_TIMEOUT_S = 5.0
DOWNLOAD_TIMEOUT_S = 15.0
#: The night makes one a day: without a verified one for longer, something is wrong.
OVERDUE = dt.timedelta(hours=36)


@dataclass(frozen=True, slots=True)
class Row:
    """A backup as the page shows it."""

    name: str
    taken_at: dt.datetime
    age: str
    parts: tuple[str, ...]
    verified: str
    #: success, warning or danger.
    verified_variant: str
    problem: str
    is_encrypted: bool
    version: str
    reason: str
    verify_url: str
    #: Empty: it has no database, or cannot be read.
    download_url: str


@admin.register(BackupRun)
class BackupRunAdmin(ReadOnlyMixin, ListedLookupsMixin, ModelAdmin):
    """The page of backups, and the runs that made and verified them."""

    list_display = ("started_at", "kind", "state_and_problem", "name", "took", "written", "requested_by")
    list_filter = ("kind", "state")
    list_select_related = ("requested_by",)
    ordering = ("-started_at", "-pk")
    list_before_template = "admin/operations/backups.html"

    def get_urls(self) -> list[URLPattern]:
        return [
            path(address, self.admin_site.admin_view(view), name=f"operations_{name}")
            for address, view, name in (
                ("back-up/", self.back_up, "back_up"),
                ("verify/<str:name>/", self.verify, "verify_backup"),
                ("download/<str:name>/", self.download, "download_backup"),
                ("confirm-restore/", self.confirm_restore, "confirm_restore"),
            )
        ] + super().get_urls()

    @admin.display(description=_("state"), ordering="state")
    def state_and_problem(self, run: BackupRun) -> str:
        return f"{run.get_state_display()}: {run.problem}" if run.problem else run.get_state_display()

    @admin.display(description=_("duration"))
    def took(self, run: BackupRun) -> str:
        if run.finished_at is None:
            return "—"
        return str(dt.timedelta(seconds=round((run.finished_at - run.started_at).total_seconds())))

    @admin.display(description=_("written"), ordering="stored_bytes")
    def written(self, run: BackupRun) -> str:
        return filesizeformat(run.stored_bytes) if run.stored_bytes else "—"

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponseBase:
        context = {"title": _("Backups"), "backups": _describe(request)} if self.has_view_permission(request) else {}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    @method_decorator(require_POST)
    def back_up(self, request: HttpRequest) -> HttpResponse:
        user = _require(request, START)
        return self._ask(request, lambda: requests.request_backup(requested_by=user), "Asked for a backup.")

    @method_decorator(require_POST)
    def verify(self, request: HttpRequest, name: str) -> HttpResponse:
        user = _require(request, START)
        if not manifest.is_name(name):
            raise Http404
        return self._ask(
            request,
            lambda: requests.request_verification(name=name, requested_by=user),
            f"Asked for a verification of {name}.",
        )

    @method_decorator(require_POST)
    def confirm_restore(self, request: HttpRequest) -> HttpResponse:
        """As `manage.py confirm_restore`."""
        user = _require(request, CONFIRM)
        if restoring.confirm_restores(now=timezone.now()):
            _log(user, "Confirmed a restore.")
            self.message_user(
                request, _("Confirmed: audio that nothing refers to may be removed again."), messages.SUCCESS
            )
        else:
            self.message_user(request, _("There is no restore to confirm."), messages.INFO)
        return _to_page()

    @method_decorator(require_POST)
    def download(self, request: HttpRequest, name: str) -> HttpResponseBase:
        """Serve the database of a backup as it is stored, and log it. It has all that people said."""
        _require(request, DOWNLOAD)
        listed = listing.lister.get(timeout_s=LIST_TIMEOUT_S)
        found = listed.find(name) if listed else None
        if listed and not listed.problem and found is None:
            raise Http404
        if listed is None or found is None:
            return self._refuse_download(request, listed.problem if listed else "")
        member = found.manifest.database if found.manifest else None
        if member is None:
            raise Http404
        download = Download(maintenance.open_target(), member.key)
        try:
            download.wait_for_first(DOWNLOAD_TIMEOUT_S)
        except (TargetError, FileNotFoundError, TimeoutError) as error:
            return self._refuse_download(request, str(error))
        # Before it is served.
        log_access(request, Access.BACKUP, of=None, model=BackupRun, detail=f"{name}.")
        return StreamingHttpResponse(
            download,
            content_type="application/octet-stream",
            headers={
                "Content-Length": str(member.size_bytes),
                "Content-Disposition": f'attachment; filename="{member.key.rpartition("/")[2]}"',
                "Cache-Control": "private, no-store",
            },
        )

    def _refuse_download(self, request: HttpRequest, problem: str) -> HttpResponse:
        sentence = problem or gettext("the target does not answer.")
        self.message_user(request, _("Nothing was downloaded: {}").format(sentence), messages.ERROR)
        return _to_page()

    def _ask(self, request: HttpRequest, ask: Any, told: str) -> HttpResponse:
        try:
            ask()
        except requests.AlreadyRunning:
            self.message_user(request, _("One is being made or verified right now."), messages.WARNING)
        except requests.AlreadyQueued:
            self.message_user(request, _("One is asked for already, and begins soon."), messages.WARNING)
        except requests.QueueUnavailable as error:
            self.message_user(request, _("It could not be queued: {}").format(error), messages.ERROR)
        else:
            _log(request.user, told)  # type: ignore[arg-type]  # the permission was checked
            self.message_user(request, _("It begins within a minute; see below how it goes."), messages.SUCCESS)
        return _to_page()


@admin.register(Restore)
class RestoreAdmin(ReadOnlyMixin, ListedLookupsMixin, ModelAdmin):
    """Restores, and whether an operator has confirmed each."""

    list_display = ("restored_at", "name", "confirmed_at", "safety_name")
    ordering = ("-restored_at", "-pk")


def _require(request: HttpRequest, permission: str) -> User:
    if not request.user.has_perm(permission):
        raise PermissionDenied
    return request.user  # type: ignore[return-value]  # strangers have no permission


def _log(user: User, message: str) -> None:
    # Of no row: backups are not in the database.
    LogEntry.objects.create(
        user=user,
        content_type=ContentType.objects.get_for_model(BackupRun),
        object_repr=message[:200],
        action_flag=CHANGE,
        change_message=message,
    )


def _to_page() -> HttpResponseRedirect:
    return HttpResponseRedirect(reverse("admin:operations_backuprun_changelist"))


def _describe(request: HttpRequest) -> dict[str, Any]:
    """Return what the page shows above the runs."""
    now = timezone.now()
    found = listing.lister.get(timeout_s=LIST_TIMEOUT_S)
    rows = [_describe_backup(backup, now=now) for backup in found.backups] if found else []
    verified = next((backup.taken_at for backup in found.backups if backup.is_verified), None) if found else None
    drill = BackupRun.objects.filter(kind=RunKind.VERIFICATION).exclude(state=RunState.RUNNING).newest_first().first()
    user = request.user
    return {
        "address": found.address if found else settings.AVATAR_BACKUP_TARGET,
        "is_read": found is not None,
        # The list of an earlier read, because this one takes too long.
        "is_old": found is not None and now - found.read_at > dt.timedelta(seconds=2 * LIST_TIMEOUT_S),
        "read_at": found.read_at if found else None,
        "problem": found.problem if found else "",
        "risk": found.risk if found else "",
        "rows": rows,
        "newest_verified_age": timesince(verified, now, depth=1) if verified else "",
        "is_overdue": _is_overdue(found, verified, now=now),
        "drill": drill,
        "drill_age": timesince(drill.finished_at, now, depth=1) if drill and drill.finished_at else "",
        "running": requests.find_running(),
        "is_requested": maintenance.is_requested(),
        "unconfirmed": Restore.objects.unconfirmed().order_by("-restored_at", "-pk").first(),
        "database_days": settings.AVATAR_BACKUP_DATABASE_DAYS,
        "audio_days": settings.AVATAR_BACKUP_AUDIO_DAYS,
        "may_start": user.has_perm(START),
        "may_download": user.has_perm(DOWNLOAD),
        "may_confirm": user.has_perm(CONFIRM),
    }


def _is_overdue(found: Listing | None, verified: dt.datetime | None, *, now: dt.datetime) -> bool:
    """Whether backups do not work. A target that cannot be read says so itself; a new site has had no night yet."""
    if found is None or found.problem:
        return False
    if verified is not None:
        return now - verified > OVERDUE
    return bool(found.backups) or BackupRun.objects.exists()


def _describe_backup(backup: ListedBackup, *, now: dt.datetime) -> Row:
    parts = []
    found = backup.manifest
    if found and found.database:
        parts.append(gettext("database {size}").format(size=filesizeformat(found.database.size_bytes)))
    if found and found.audio:
        count = found.audio.file_count
        files = ngettext("{count} audio file, {size}", "{count} audio files, {size}", count)
        parts.append(files.format(count=count, size=filesizeformat(found.audio.content_bytes)))
    verified, variant, problem = _describe_verification(backup)
    address = [backup.name]
    return Row(
        name=backup.name,
        taken_at=backup.taken_at,
        age=timesince(backup.taken_at, now, depth=1),
        parts=tuple(parts),
        verified=verified,
        verified_variant=variant,
        problem=problem,
        is_encrypted=bool(found and found.is_encrypted),
        version=found.version if found else "",
        reason=_describe_reason(found.reason) if found else "",
        verify_url=reverse("admin:operations_verify_backup", args=address) if found else "",
        download_url=reverse("admin:operations_download_backup", args=address) if found and found.database else "",
    )


def _describe_verification(backup: ListedBackup) -> tuple[str, str, str]:
    """Return words, how alarming they are, and the problem in full."""
    record = backup.record
    if backup.problem or (record and record.problem):
        return gettext("damaged"), "danger", backup.problem or (record.problem if record else "")
    if record is None:
        return gettext("not verified"), "warning", ""
    if not backup.is_verified:
        return gettext("checksums only"), "warning", ""
    return gettext("verified"), "success", ""


def _describe_reason(reason: str) -> str:
    return {
        "manual": gettext("by hand"),
        "nightly": gettext("at night"),
        "before-migration": gettext("before a migration"),
        "before-restore": gettext("before a restore"),
        "before-upgrade": gettext("before an upgrade"),
    }.get(reason, reason)
