"""Users, groups and the audit list, in the theme's own widgets: Django's stock forms are invisible in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin
from unfold.decorators import action
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from avatar_site.accounts.audit import AuditAdmin
from realtime.admin import log_people_out
from realtime.models import LiveCall

admin.site.unregister(User)
admin.site.unregister(Group)
admin.site.register(LogEntry, AuditAdmin)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    ordering = ("username", "pk")
    actions_row = ("reset_password",)
    actions_detail = ("reset_password",)
    actions = ("log_out",)

    def get_deleted_objects(
        self, objs: Sequence[User] | QuerySet[User], request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[str]]:
        """
        Return what goes with an account, and what keeps it from being deleted.

        The audit list keeps an operator's: nobody may delete entries. A call that is going on does not, though nobody
        may delete calls either: it ends with its login.
        """
        deleted, counts, refused, protected = super().get_deleted_objects(objs, request)
        refused.discard(str(LiveCall._meta.verbose_name))
        return deleted, counts, refused, protected

    @action(description=_("Reset password"), url_path="reset-password", permissions=["change"])
    def reset_password(self, request: HttpRequest, object_id: int) -> HttpResponseRedirect:
        return HttpResponseRedirect(reverse("admin:auth_user_password_change", args=[object_id]))

    @admin.action(description=_("Log these people out, and end their calls"), permissions=["change"])
    def log_out(self, request: HttpRequest, people: QuerySet[User]) -> None:
        log_people_out(self, request, people)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):
    ordering = ("name", "pk")
