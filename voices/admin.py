"""Voices for operators: who owns them, their state, quality and consent."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.urls import URLPattern, path, reverse
from django.utils.formats import localize
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django.utils.timezone import localtime
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin, TabularInline

from avatar_site.lib.admin import ListedLookupsMixin
from avatar_site.lib.audit import Access, log_access
from avatar_site.lib.http_ranges import respond_with_file
from avatar_site.lib.problems import ProblemError
from voices import services
from voices.models import Consent, FittingState, Recording, State, VoiceProfile, VoiceProfileQuerySet

if TYPE_CHECKING:
    from django.contrib.auth.models import User


#: The query parameter that shows transcripts.
_TRANSCRIPTS = "transcripts"
_LISTENING = "voices.listen_to_recording"
#: A player that seeks sends a request for each part.
ONE_LISTENING = dt.timedelta(minutes=10)


class RecordingInline(TabularInline):
    """The recordings of a voice. They are private: every listening is logged."""

    model = Recording
    fields: ClassVar[tuple[str, ...]] = ("listen", "duration_s", "speech_s", "snr_db", "speaker_count", "size_bytes")
    readonly_fields: ClassVar[tuple[str, ...]] = fields
    ordering = ("created_at", "pk")
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: VoiceProfile | None = None) -> bool:
        return False

    @admin.display(description=_("recording"))
    def listen(self, recording: Recording) -> str:
        address = reverse("admin:voices_recording_listen", args=[recording.pk])
        return format_html('<a href="{}">{}</a>', address, _("Listen (is written down)"))


class TranscriptInline(RecordingInline):
    """The same with transcripts, which need the permission to listen and are logged too."""

    fields: ClassVar[tuple[str, ...]] = ("listen", "duration_s", "speaker_count", "transcript")
    readonly_fields = fields


class VoiceProfileForm(forms.ModelForm):
    def clean_name(self) -> str:
        try:
            return services.check_name(self.cleaned_data["name"])
        except ProblemError as problem:
            raise forms.ValidationError(problem.sentence) from problem


class StateFilter(admin.SimpleListFilter):
    """By the state of a voice, which is computed."""

    title = _("state")
    # As Django names the filter of a column: bookmarked URLs stay valid.
    parameter_name = "state__exact"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return list(State.choices)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        state = self.value()
        if state not in State.values:
            return queryset
        return queryset.filter(pk__in=VoiceProfile.objects.in_state(State(state)))


class JobDisplays:
    """Columns that are read from the jobs of a voice."""

    @admin.display(description=_("state"))
    def state(self, profile: VoiceProfile) -> str:
        return str(profile.state.label)

    @admin.display(description=_("step"))
    def step(self, profile: VoiceProfile) -> str:
        return profile.build_job.get_step_display() if profile.build_job else "—"

    @admin.display(description=_("progress"))
    def progress(self, profile: VoiceProfile) -> str:
        return f"{profile.build_job.progress:.0%}" if profile.build_job else "—"

    @admin.display(description=_("error"))
    def error(self, profile: VoiceProfile) -> str:
        return (profile.build_job.error if profile.build_job else "") or "—"

    @admin.display(description=_("fitting"))
    def fitting(self, profile: VoiceProfile) -> str:
        return str(FittingState(profile.fit_job.state if profile.fit_job else "none").label)


@admin.register(VoiceProfile)
class VoiceProfileAdmin(JobDisplays, ListedLookupsMixin, ModelAdmin):
    """Voices are created by their owners, from recordings and with consent: not here."""

    form = VoiceProfileForm
    list_display = ("name", "owner", "kind", "language", "state", "size", "measured", "last_used_at", "created_at")
    list_filter = (StateFilter, "kind", "language", "is_shared")
    list_select_related = ("owner",)
    search_fields = ("name", "engine_voice", "owner__username")
    ordering = ("-created_at", "pk")
    fields = (
        *("id", "name", "owner", "language", "gender", "kind", "is_shared", "state", "step", "progress", "error"),
        *("engine_voice", "measured", "fitting", "encoder", "version", "size", "declared", "transcripts"),
        *("created_at", "last_used_at"),
    )
    readonly_fields = tuple(field for field in fields if field not in ("name", "gender", "is_shared"))
    actions = ("rebuild", "disable", "enable", "unshare")

    def get_queryset(self, request: HttpRequest) -> VoiceProfileQuerySet:
        return VoiceProfile.objects.with_size().prefetch_related("jobs")

    def get_urls(self) -> list[URLPattern]:
        listen = path(
            "recordings/<uuid:recording_id>/listen",
            self.admin_site.admin_view(self.listen),
            name="voices_recording_listen",
        )
        return [listen, *super().get_urls()]

    def get_fields(self, request: HttpRequest, obj: VoiceProfile | None = None) -> list[str]:
        return [name for name in self.fields if name != "transcripts" or request.user.has_perm(_LISTENING)]

    def get_inlines(self, request: HttpRequest, obj: VoiceProfile | None) -> list[type[TabularInline]]:
        return [TranscriptInline if _TRANSCRIPTS in request.GET else RecordingInline]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if _TRANSCRIPTS in request.GET:
            if not request.user.has_perm(_LISTENING):
                raise PermissionDenied
            if (profile := self.get_object(request, unquote(object_id))) is not None:
                # Logged before it is shown.
                log_access(request, Access.TRANSCRIPTS, of=profile, model=VoiceProfile)
        return super().change_view(request, object_id, form_url, extra_context)

    def get_readonly_fields(self, request: HttpRequest, obj: VoiceProfile | None = None) -> tuple[str, ...]:
        if obj is None or obj.is_stock:
            # The next release would undo a change of a stock voice.
            return self.fields
        user: User = request.user  # type: ignore[assignment]  # the admin requires a login
        return self.readonly_fields if services.may_share(user, obj) else (*self.readonly_fields, "is_shared")

    def save_model(self, request: HttpRequest, obj: VoiceProfile, form: forms.ModelForm, change: bool) -> None:
        # Only changed fields: a worker may have written to the row since it was read.
        changed = {name: form.cleaned_data[name] for name in form.changed_data}
        gender = changed.pop("gender", None)
        user: User = request.user  # type: ignore[assignment]  # as above
        if changed:
            services.change_voice_profile(profile=VoiceProfile.objects.get(pk=obj.pk), user=user, **changed)
        if gender is not None:
            VoiceProfile.objects.filter(pk=obj.pk).update(gender=gender)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: VoiceProfile | None = None) -> bool:
        # The next release would create a stock voice again; it can be disabled.
        return super().has_delete_permission(request, obj) and (obj is None or not obj.is_stock)

    def delete_model(self, request: HttpRequest, obj: VoiceProfile) -> None:
        try:
            services.delete_voice_profile(profile=obj)
        except ProblemError as problem:
            self.message_user(request, f"{obj}: {problem.sentence}", messages.WARNING)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[VoiceProfile]) -> None:
        for profile in queryset.filter(owner__isnull=False):
            self.delete_model(request, profile)

    @admin.display(description=_("size"))
    def size(self, profile: VoiceProfile) -> str:
        return filesizeformat(getattr(profile, "size_bytes", 0))

    @admin.display(description=_("similarity"), ordering="similarity")
    def measured(self, profile: VoiceProfile) -> str:
        return "—" if profile.best_similarity is None else f"{profile.best_similarity:.2f}"

    @admin.display(description=_("consent"))
    def declared(self, profile: VoiceProfile) -> str:
        consents = Consent.objects.of_voice(profile).select_related("given_by").oldest_first()
        lines = (
            (each.given_by.get_username(), localize(localtime(each.given_at)), each.text, each.text_sha256)
            for each in consents
        )
        return format_html_join(mark_safe("<br>"), "{}, {}: {} (SHA-256 {})", lines) or "—"

    @admin.display(description=_("transcripts"))
    def transcripts(self, profile: VoiceProfile) -> str:
        return format_html('<a href="?{}=1">{}</a>', _TRANSCRIPTS, _("Read what was said (is written down)"))

    @admin.action(description=_("Rebuild the voice"), permissions=["change"])
    def rebuild(self, request: HttpRequest, queryset: QuerySet[VoiceProfile]) -> None:
        self._apply(request, queryset, services.rebuild)

    @admin.action(description=_("Disable"), permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[VoiceProfile]) -> None:
        self._apply(request, queryset, services.disable)

    @admin.action(description=_("Enable"), permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[VoiceProfile]) -> None:
        self._apply(request, queryset, services.enable)

    @admin.action(description=_("Stop sharing"), permissions=["change"])
    def unshare(self, request: HttpRequest, queryset: QuerySet[VoiceProfile]) -> None:
        self._apply(request, queryset, services.unshare)

    def _apply(self, request: HttpRequest, queryset: QuerySet[VoiceProfile], change: Any) -> None:
        count = 0
        for profile in queryset:
            try:
                change(profile=profile)
            except ProblemError as problem:
                self.message_user(request, f"{profile}: {problem.sentence}", messages.WARNING)
            else:
                self.log_change(request, profile, change.__name__)
                count += 1
        self.message_user(request, _("Changed voices: {count}.").format(count=count))

    def listen(self, request: HttpRequest, recording_id: Any) -> HttpResponse:
        """Serve a recording to an operator with the permission to listen, and log it."""
        if not request.user.has_perm(_LISTENING):
            raise PermissionDenied
        recording = Recording.objects.select_related("profile").filter(pk=recording_id).first()
        if recording is None:
            raise Http404
        # Logged before it is served.
        log_access(
            request,
            Access.RECORDING,
            of=recording.profile,
            model=VoiceProfile,
            detail=str(recording.pk),
            once_within=ONE_LISTENING,
        )
        return respond_with_file(
            recording.audio,
            content_type="audio/flac",
            filename=f"{recording.pk}.flac",
            wanted=request.headers.get("Range", ""),
        )
