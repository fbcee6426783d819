"""Alerts for operators: what holds, what held, acknowledge it; and the badge of every page of the admin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.db import DatabaseError
from django.db.models import F
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from unfold.admin import ModelAdmin
from unfold.decorators import display

from avatar_site.lib.admin import ListedLookupsMixin, ReadOnlyMixin
from avatar_site.monitoring import sentences
from avatar_site.monitoring.models import Alert, AlertQuerySet, AlertState, Severity

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.utils.safestring import SafeString

#: Anchors there are the keys of conditions.
RUN_BOOK = "docs/runbooks/alerts.md"


class ConditionFilter(admin.SimpleListFilter):
    """By the titles of conditions; a column's own filter shows their keys."""

    title = _("condition")
    parameter_name = "condition"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return [(key, str(title)) for key, title in sentences.TITLES.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Alert]) -> QuerySet[Alert]:
        return queryset.filter(condition=self.value()) if self.value() else queryset


@admin.register(Alert)
class AlertAdmin(ReadOnlyMixin, ListedLookupsMixin, ModelAdmin):
    """Unresolved alerts first."""

    list_display = ("sentence", "show_severity", "show_state", "opened_at", "resolved_at", "acknowledged_by")
    list_filter = ("state", "severity", ConditionFilter)
    list_select_related = ("acknowledged_by",)
    ordering = (F("resolved_at").desc(nulls_first=True), "-opened_at", "-pk")
    actions = ("acknowledge",)
    fields = (
        "title",
        "sentence",
        "severity",
        "state",
        "opened_at",
        "last_seen_at",
        "resolved_at",
        "acknowledged_at",
        "acknowledged_by",
        "notified_at",
        "run_book",
    )

    @admin.display(description=_("alert"))
    def sentence(self, alert: Alert) -> str:
        return str(alert)

    @admin.display(description=_("condition"))
    def title(self, alert: Alert) -> str:
        return sentences.find_title(alert.condition)

    @admin.display(description=_("what to do"))
    def run_book(self, alert: Alert) -> str:
        return f"{RUN_BOOK}#{alert.condition}"

    @display(
        description=_("severity"),
        ordering="severity",
        label={Severity.ERROR.value: "danger", Severity.WARNING.value: "warning"},
    )
    def show_severity(self, alert: Alert) -> tuple[str, str]:
        return alert.severity, alert.get_severity_display()

    @display(
        description=_("state"),
        ordering="state",
        label={
            AlertState.OPEN.value: "danger",
            AlertState.ACKNOWLEDGED.value: "info",
            AlertState.RESOLVED.value: "success",
        },
    )
    def show_state(self, alert: Alert) -> tuple[str, str]:
        return alert.state, alert.get_state_display()

    @admin.action(description=_("Acknowledge: I take care of it"), permissions=["acknowledge"])
    def acknowledge(self, request: HttpRequest, queryset: AlertQuerySet) -> None:
        """Mark open alerts as known, and write who did. They are resolved by themselves."""
        chosen = list(queryset.filter(state=AlertState.OPEN).order_by("pk"))
        for alert in chosen:
            LogEntry.objects.log_actions(
                user_id=request.user.pk or 0,
                queryset=Alert.objects.filter(pk=alert.pk),
                action_flag=CHANGE,
                change_message="Acknowledged.",
            )
        count = queryset.acknowledge(by=request.user, now=timezone.now())  # type: ignore[arg-type]  # strangers may not
        self.message_user(
            request,
            ngettext("{count} alert acknowledged.", "{count} alerts acknowledged.", count).format(count=count),
            messages.SUCCESS if count else messages.INFO,
        )

    def has_acknowledge_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("monitoring.change_alert")


def make_badge(request: HttpRequest) -> tuple[SafeString, str] | None:
    """
    Return how many alerts are open, and the colour of that, for the head of every page; None of none.

    One query of a few rows. A database that does not answer shows no badge, but the page's own error.
    """
    if not request.user.has_perm("monitoring.view_alert"):
        return None
    try:
        severities = list(Alert.objects.filter(state=AlertState.OPEN).values_list("severity", flat=True))
    except DatabaseError:
        return None
    if not severities:
        return None
    count = len(severities)
    words = ngettext("{count} open alert", "{count} open alerts", count).format(count=count)
    address = f"{reverse('admin:monitoring_alert_changelist')}?state__exact={AlertState.OPEN}"
    return (
        format_html('<a href="{}">{}</a>', address, words),
        "danger" if Severity.ERROR in severities else "warning",
    )
