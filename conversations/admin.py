from __future__ import annotations

from typing import ClassVar

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline

from conversations.models import Conversation, Turn


class TurnInline(TabularInline):
    """What was said, to be read: it is a record, and nobody edits it here."""

    model = Turn
    fields: ClassVar = ("sequence", "speaker", "text", "language", "audio_duration_ms", "was_interrupted", "latency")
    readonly_fields = fields
    ordering = ("sequence", "pk")
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Conversation | None = None) -> bool:
        return False


@admin.register(Conversation)
class ConversationAdmin(ModelAdmin):
    list_display = ("__str__", "owner", "created_at", "last_turn_at")
    list_select_related = ("owner",)
    search_fields = ("title", "owner__username")
    ordering = ("-last_turn_at", "pk")
    readonly_fields = ("id", "owner", "created_at", "last_turn_at")
    inlines = (TurnInline,)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False
