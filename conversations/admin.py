"""
Conversations for operators: count, size, age; not their text.

Opening the text takes a permission of its own, `conversations.view_content`, and is logged each time.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin, TabularInline

from avatar_site.lib.admin import ListedLookupsMixin, ReadOnlyMixin
from avatar_site.lib.audit import Access, log_access
from conversations import deletion
from conversations.models import Conversation, ConversationQuerySet, RetentionRun, StorageCheck, Turn

#: The query parameter that opens the text.
_CONTENT = "content"


class _ReadOnlyInline(TabularInline):
    model = Turn
    ordering = ("sequence", "pk")
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Conversation | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Conversation | None = None) -> bool:
        return False


class TurnInline(_ReadOnlyInline):
    fields: ClassVar = (
        "sequence",
        "speaker",
        "language",
        "created_at",
        "audio_duration_ms",
        "audio_bytes",
        "voice_name",
        "quality",
        "was_interrupted",
        "is_superseded",
        "latency",
    )
    readonly_fields = fields


class ContentInline(_ReadOnlyInline):
    fields: ClassVar = ("sequence", "speaker", "text", "heard_text", "created_at")
    readonly_fields = fields


@admin.register(Conversation)
class ConversationAdmin(ListedLookupsMixin, ModelAdmin):
    list_display = ("id", "owner", "created_at", "last_turn_at", "is_pinned", "turn_count", "audio_size")
    list_select_related = ("owner",)
    list_filter = ("is_pinned",)
    search_fields = ("owner__username",)
    ordering = ("-last_turn_at", "-pk")
    fields = ("id", "owner", "created_at", "last_turn_at", "is_pinned", "content")
    readonly_fields = fields

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Conversation | None = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Conversation]:
        return Conversation.objects.with_figures()

    @admin.display(description=_("turns"))
    def turn_count(self, conversation: Any) -> int:
        return int(conversation.turn_count)

    @admin.display(description=_("audio"))
    def audio_size(self, conversation: Any) -> str:
        return filesizeformat(conversation.audio_bytes)

    @admin.display(description=_("content"))
    def content(self, conversation: Conversation) -> str:
        return format_html('<a href="?{}=1">{}</a>', _CONTENT, _("Open what was said (this is logged)"))

    def get_fields(self, request: HttpRequest, obj: Conversation | None = None) -> list[str]:
        may_open = request.user.has_perm("conversations.view_content")
        return [name for name in self.fields if name != "content" or may_open]

    def get_inlines(self, request: HttpRequest, obj: Conversation | None) -> list[type[TabularInline]]:
        return [ContentInline if _CONTENT in request.GET else TurnInline]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if _CONTENT in request.GET:
            if not request.user.has_perm("conversations.view_content"):
                raise PermissionDenied
            if (conversation := self.get_object(request, unquote(object_id))) is not None:
                # An id without a conversation is answered by Django.
                log_access(request, Access.CONVERSATION, of=conversation, model=Conversation)
        return super().change_view(request, object_id, form_url, extra_context)

    def delete_model(self, request: HttpRequest, obj: Conversation) -> None:
        deletion.delete_rows_of_conversations(conversations=Conversation.objects.filter(pk=obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Conversation]) -> None:
        chosen: ConversationQuerySet = Conversation.objects.filter(pk__in=queryset.values("pk"))
        deletion.delete_rows_of_conversations(conversations=chosen)


@admin.register(RetentionRun)
class RetentionRunAdmin(ReadOnlyMixin, ListedLookupsMixin, ModelAdmin):
    list_display = ("started_at", "finished_at", "audio_files", "audio_bytes", "turns", "conversations")
    ordering = ("-started_at", "-pk")


@admin.register(StorageCheck)
class StorageCheckAdmin(ReadOnlyMixin, ListedLookupsMixin, ModelAdmin):
    list_display = ("checked_at", "was_refused", "files", "files_without_turn", "turns", "turns_without_file")
    list_filter = ("was_refused",)
    ordering = ("-checked_at", "-pk")
