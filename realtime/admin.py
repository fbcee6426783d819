"""Who is connected, for operators: end a call, log a person out. What is said is not shown."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, cast

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.timesince import timesince
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin

from avatar_site.lib.admin import ListedLookupsMixin, ReadOnlyMixin
from realtime import services
from realtime.models import LiveCall

if TYPE_CHECKING:
    from realtime.models import LiveCallQuerySet


@admin.register(LiveCall)
class LiveCallAdmin(ReadOnlyMixin, ListedLookupsMixin, ModelAdmin):  # type: ignore[misc]  # Unfold publishes no types
    list_display = ("user", "state", "began_at", "lasts", "is_kept", "process", "last_seen_at")
    list_display_links = None
    list_filter = ("state",)
    list_select_related = ("user",)
    ordering = ("began_at", "pk")
    actions = ("end_calls", "log_people_out")

    def get_queryset(self, request: HttpRequest) -> LiveCallQuerySet:
        """Without those whose process was killed."""
        return LiveCall.objects.fresh(timezone.now())

    def has_end_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("realtime.end_call")

    @admin.display(description=_("for"), ordering="-began_at")
    def lasts(self, call: LiveCall) -> str:
        return timesince(call.began_at)

    @admin.display(description=_("conversation"))
    def is_kept(self, call: LiveCall) -> str:
        return gettext("is not kept") if call.conversation_id is None else gettext("is kept")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponseBase:
        context = {"title": _("Who is connected"), **(extra_context or {})}
        page: HttpResponseBase = super().changelist_view(request, context)
        return page

    @admin.action(description=_("End the selected calls"), permissions=["end"])
    def end_calls(self, request: HttpRequest, calls: QuerySet[LiveCall]) -> None:
        people = _list_people(calls)
        count = services.end_calls(session_ids=list(calls.values_list("pk", flat=True)))
        _log(request, people, "Ended a call.")
        self.message_user(
            request,
            ngettext("{count} call is ended.", "{count} calls are ended.", count).format(count=count),
            messages.SUCCESS,
        )

    @admin.action(description=_("Log these people out, and end their calls"), permissions=["end"])
    def log_people_out(self, request: HttpRequest, calls: QuerySet[LiveCall]) -> None:
        log_people_out(self, request, _list_people(calls))


def log_people_out(page: admin.ModelAdmin[Any], request: HttpRequest, people: Iterable[User]) -> None:
    """End the logins of these people and with them their calls, log it, and say so on the page."""
    people = list(people)
    for person in people:
        services.log_out(user_id=person.pk)
    _log(request, people, "Logged out.")
    count = len(people)
    page.message_user(
        request,
        ngettext("{count} person is logged out.", "{count} people are logged out.", count).format(count=count),
        messages.SUCCESS,
    )


def _list_people(calls: QuerySet[LiveCall]) -> list[User]:
    return list(User.objects.filter(pk__in=calls.values("user_id")).order_by("username", "pk"))


def _log(request: HttpRequest, people: Collection[User], what: str) -> None:
    operator = cast(User, request.user)
    LogEntry.objects.log_actions(operator.pk, people, CHANGE, change_message=what)
