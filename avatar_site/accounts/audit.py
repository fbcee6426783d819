"""The audit list: what operators opened, changed and deleted, from Django's log. Nobody edits it here."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin
from unfold.decorators import display

from avatar_site.lib import audit
from avatar_site.lib.admin import ListedLookupsMixin, ReadOnlyMixin

_ACCESS = "access"
_FLAGS = {"added": ADDITION, "changed": CHANGE, "deleted": DELETION}
#: The messages that the site writes besides those of `audit.Access` and Django's own.
MESSAGES = {
    "Asked for a backup.": _("Asked for a backup"),
    "Confirmed a restore.": _("Confirmed a restore"),
    "rebuild": _("Rebuilt the voice"),
    "disable": _("Disabled the voice"),
    "enable": _("Enabled the voice"),
    "unshare": _("Stopped sharing the voice"),
    "Ended a call.": _("Ended a call"),
    "Logged out.": _("Logged the person out"),
    "Acknowledged.": _("Acknowledged an alert"),
}


class KindFilter(admin.SimpleListFilter):
    title = _("kind")
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            (_ACCESS, _("content opened")),
            ("changed", _("changed")),
            ("added", _("added")),
            ("deleted", _("deleted")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[LogEntry]) -> QuerySet[LogEntry]:
        kind = self.value()
        if kind == _ACCESS:
            return queryset.filter(audit.is_access())
        if kind in _FLAGS:
            return queryset.filter(action_flag=_FLAGS[kind]).exclude(audit.is_access())
        return queryset


class OperatorFilter(admin.SimpleListFilter):
    """Those who are in the log."""

    title = _("operator")
    parameter_name = "operator"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        operators = User.objects.filter(pk__in=LogEntry.objects.order_by().values("user"))
        return [(str(pk), name) for pk, name in operators.order_by("username", "pk").values_list("pk", "username")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[LogEntry]) -> QuerySet[LogEntry]:
        chosen = self.value()
        return queryset.filter(user_id=int(chosen)) if chosen and chosen.isdecimal() else queryset


class SubjectFilter(admin.SimpleListFilter):
    """The kinds of rows that are in the log."""

    title = _("what about")
    parameter_name = "about"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        types = ContentType.objects.filter(pk__in=LogEntry.objects.order_by().values("content_type"))
        return sorted(((str(each.pk), each.name) for each in types), key=lambda each: each[1])

    def queryset(self, request: HttpRequest, queryset: QuerySet[LogEntry]) -> QuerySet[LogEntry]:
        chosen = self.value()
        return queryset.filter(content_type_id=int(chosen)) if chosen and chosen.isdecimal() else queryset


class AuditAdmin(ReadOnlyMixin, ListedLookupsMixin, ModelAdmin):
    list_display = ("action_time", "user", "kind", "what_was_done", "subject", "row")
    list_display_links = None
    list_filter = (KindFilter, OperatorFilter, SubjectFilter)
    list_select_related = ("user", "content_type")
    list_per_page = 50
    show_full_result_count = False
    search_fields = ("=object_id", "=user__username")
    search_help_text = _("An id of a conversation or a voice, or a user name, in full.")
    date_hierarchy = "action_time"
    ordering = ("-action_time", "-pk")

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        by_date = lookup.removeprefix("action_time__") in {"year", "month", "day", "gte", "lt"}
        return by_date or super().lookup_allowed(lookup, value, request)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponseBase:
        return super().changelist_view(request, {"title": gettext("Audit"), **(extra_context or {})})

    @display(
        description=_("kind"),
        label={"access": "warning", "deleted": "danger", "changed": "info", "added": "success"},
    )
    def kind(self, entry: LogEntry) -> tuple[str, str]:
        if audit.find_access(entry.change_message):
            return _ACCESS, gettext("content opened")
        if entry.action_flag == DELETION:
            return "deleted", gettext("deleted")
        if entry.action_flag == ADDITION:
            return "added", gettext("added")
        return "changed", gettext("changed")

    @admin.display(description=_("what was done"))
    def what_was_done(self, entry: LogEntry) -> str:
        if access := audit.find_access(entry.change_message):
            return str(audit.LABELS[access])
        return str(MESSAGES.get(entry.change_message) or entry.get_change_message()) or "—"

    @admin.display(description=_("what about"), ordering="content_type")
    def subject(self, entry: LogEntry) -> str:
        return entry.content_type.name if entry.content_type else "—"

    @admin.display(description=_("row"))
    def row(self, entry: LogEntry) -> str:
        url = entry.get_admin_url() if entry.object_id and entry.action_flag != DELETION else None
        return format_html('<a href="{}">{}</a>', url, entry.object_repr) if url else entry.object_repr
