"""The response bodies of the API of voices."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from avatar_site.lib.problems import describe
from voices.models import (
    Attestation,
    FittingState,
    Gender,
    Kind,
    Quality,
    Recording,
    State,
    Step,
    VoiceProfile,
)

if TYPE_CHECKING:
    from django.contrib.auth.models import User


class ReasonSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    detail = serializers.CharField()


class FittingSerializer(serializers.Serializer[Any]):
    state = serializers.ChoiceField(choices=FittingState.choices)
    progress = serializers.FloatField(help_text="0 to 1.")
    similarity = serializers.FloatField(
        allow_null=True, help_text="Of the fitted style, measured on sentences that it was not fitted on; −1 to 1."
    )


class RecordingSerializer(serializers.ModelSerializer[Recording]):
    warnings = serializers.ListField(
        child=serializers.ChoiceField(
            choices=["short", "noisy", "clipped", "several_speakers", "no_transcript", "language_differs"]
        )
    )

    class Meta:
        model = Recording
        fields = (
            "id",
            "duration_s",
            "speech_s",
            "snr_db",
            "clipped_share",
            "speaker_count",
            "transcript",
            "size_bytes",
            "created_at",
            "warnings",
        )
        read_only_fields = fields


class VoiceProfileSerializer(serializers.ModelSerializer[VoiceProfile]):
    """
    A voice. Expects `user` and `default_id` in the context, and rows of `with_size` with jobs and recordings.

    Only its owner sees errors, recordings and sizes.
    """

    gender = serializers.ChoiceField(choices=Gender.choices, allow_blank=True, read_only=True)
    kind = serializers.ChoiceField(choices=Kind.choices, read_only=True)
    state = serializers.ChoiceField(choices=State.choices, read_only=True)
    progress = serializers.SerializerMethodField()
    error = serializers.SerializerMethodField()
    similarity = serializers.FloatField(source="best_similarity", allow_null=True, read_only=True)
    fitting = serializers.SerializerMethodField()
    is_own = serializers.SerializerMethodField()
    is_default = serializers.SerializerMethodField()
    is_stock = serializers.BooleanField(read_only=True)
    qualities = serializers.ListField(child=serializers.ChoiceField(choices=Quality.choices), read_only=True)
    recordings = serializers.SerializerMethodField()
    size_bytes = serializers.SerializerMethodField()

    class Meta:
        model = VoiceProfile
        fields = (
            "id",
            "name",
            "language",
            "gender",
            "kind",
            "state",
            "progress",
            "error",
            "similarity",
            "fitting",
            "version",
            "is_own",
            "is_shared",
            "is_default",
            "is_stock",
            "qualities",
            "recordings",
            "size_bytes",
            "created_at",
            "last_used_at",
        )
        read_only_fields = fields

    @property
    def _user(self) -> User:
        return self.context["user"]

    def get_progress(self, profile: VoiceProfile) -> float:
        return profile.build_job.progress if profile.build_job else 0.0

    @extend_schema_field(ReasonSerializer(allow_null=True))
    def get_error(self, profile: VoiceProfile) -> dict[str, str] | None:
        return describe_error(profile) if profile.is_owned_by(self._user) else None

    @extend_schema_field(FittingSerializer)
    def get_fitting(self, profile: VoiceProfile) -> dict[str, Any]:
        return describe_fitting(profile)

    def get_is_own(self, profile: VoiceProfile) -> bool:
        return profile.is_owned_by(self._user)

    def get_is_default(self, profile: VoiceProfile) -> bool:
        default_id: uuid.UUID | None = self.context.get("default_id")
        return profile.pk == default_id

    @extend_schema_field(RecordingSerializer(many=True))
    def get_recordings(self, profile: VoiceProfile) -> list[Any]:
        if not profile.is_owned_by(self._user):
            return []
        # Prefetched for a list; sorted here, because `order_by` would be a query for each voice.
        recordings = sorted(profile.recordings.all(), key=lambda each: (each.created_at, each.pk))
        return list(RecordingSerializer(recordings, many=True).data)

    def get_size_bytes(self, profile: VoiceProfile) -> int:
        return int(getattr(profile, "size_bytes", 0)) if profile.is_owned_by(self._user) else 0


class StatusSerializer(serializers.Serializer[Any]):
    """The progress of the jobs of a voice."""

    state = serializers.ChoiceField(choices=State.choices)
    step = serializers.ChoiceField(choices=Step.choices)
    step_index = serializers.IntegerField(help_text="From 0.")
    step_count = serializers.IntegerField()
    progress = serializers.FloatField(help_text="Of all steps together, 0 to 1.")
    error = ReasonSerializer(allow_null=True)
    similarity = serializers.FloatField(allow_null=True)
    fitting = FittingSerializer()


class PreviewSerializer(serializers.Serializer[Any]):
    audio_url = serializers.CharField()
    duration_ms = serializers.IntegerField()
    quality = serializers.ChoiceField(
        choices=Quality.choices, help_text="What it was made with: fast where memory was short."
    )
    is_cached = serializers.BooleanField()


class ConsentSerializer(serializers.Serializer[Any]):
    attestation = serializers.ChoiceField(choices=Attestation.choices)
    text = serializers.CharField()
    text_sha256 = serializers.CharField()


class PreferenceSerializer(serializers.Serializer[Any]):
    voice_profile_id = serializers.UUIDField(allow_null=True, help_text="null: the voice that the language asks for.")
    quality = serializers.ChoiceField(choices=Quality.choices)


def describe_error(profile: VoiceProfile) -> dict[str, str] | None:
    job = profile.build_job
    if job is None or not job.error:
        return None
    return describe(job.error)


def describe_fitting(profile: VoiceProfile) -> dict[str, Any]:
    job = profile.fit_job
    return {
        "state": job.state if job else FittingState.NONE.value,
        "progress": job.progress if job else 0.0,
        "similarity": profile.fitting_similarity,
    }


def describe_status(profile: VoiceProfile, *, is_own: bool) -> dict[str, Any]:
    job = profile.build_job
    step = Step(job.step) if job else Step.QUEUED
    return {
        "state": profile.state.value,
        "step": step.value,
        "step_index": list(Step).index(step),
        "step_count": len(Step),
        "progress": job.progress if job else 0.0,
        "error": describe_error(profile) if is_own else None,
        "similarity": profile.best_similarity,
        "fitting": describe_fitting(profile),
    }
