from django.contrib import admin
from unfold.admin import ModelAdmin

from voices.models import VoiceProfile


@admin.register(VoiceProfile)
class VoiceProfileAdmin(ModelAdmin):
    list_display = ("name", "language", "gender", "engine_voice", "owner", "created_at")
    list_filter = ("language", "gender")
    list_select_related = ("owner",)
    search_fields = ("name", "engine_voice", "owner__username")
    ordering = ("owner", "-language", "name", "pk")
    readonly_fields = ("id", "created_at")
