"""
The request bodies of the API of voices. What they document they validate.

A field that is wrong raises the problem that says what to do about it, in the order of the fields.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

from django.core.files import File
from rest_framework import serializers

from avatar_site.lib.problems import ProblemError
from voices import services
from voices.models import Attestation, Language, Quality

_CONSENT_TEXT = (
    "SHA-256 of the wording that was shown (see `/api/voice-consent`), which is then what is kept. Without it: the "
    "wording in the request's language."
)


class _ProblemMixin:
    """Raise a problem instead of REST framework's own errors: the one of `missing`, else of `wrong`."""

    missing: ClassVar[str] = "invalid"
    wrong: ClassVar[str] = "invalid"

    def fail(self, key: str, **values: Any) -> NoReturn:
        problem = self.missing if key in ("required", "null", "blank", "empty") else self.wrong
        raise ProblemError(problem, field=str(self.field_name))  # type: ignore[attr-defined]  # of serializers.Field


class TextField(_ProblemMixin, serializers.CharField):
    """A string: REST framework takes numbers as well."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        services.check_characters(data, field=str(self.field_name))
        return super().to_internal_value(data)


class NameField(TextField):
    missing = "name_required"

    def to_internal_value(self, data: Any) -> str:
        return services.check_name(super().to_internal_value(data))


class PreviewTextField(TextField):
    missing = "text_required"

    def to_internal_value(self, data: Any) -> str:
        return services.check_preview_text(super().to_internal_value(data))


class FlagField(_ProblemMixin, serializers.BooleanField):
    """True or false: REST framework takes "false" and 0 as well."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid")
        return data


class LanguageField(_ProblemMixin, serializers.ChoiceField):
    missing = wrong = "language_unknown"

    def __init__(self, **options: Any) -> None:
        super().__init__(choices=Language.choices, **options)


class QualityField(_ProblemMixin, serializers.ChoiceField):
    missing = wrong = "quality_unknown"

    def __init__(self, **options: Any) -> None:
        super().__init__(choices=Quality.choices, **options)


class AttestationField(_ProblemMixin, serializers.ChoiceField):
    missing, wrong = "consent_required", "consent_invalid"

    def __init__(self, **options: Any) -> None:
        super().__init__(choices=Attestation.choices, **options)


class ScopeField(_ProblemMixin, serializers.ChoiceField):
    def __init__(self, **options: Any) -> None:
        super().__init__(choices=["own", "shared", "stock"], **options)


class UploadField(_ProblemMixin, serializers.FileField):
    """An uploaded file of at most `max_bytes`."""

    missing = wrong = "audio_required"

    def __init__(self, *, max_bytes: int, too_large: str, **options: Any) -> None:
        super().__init__(**options)
        self.max_bytes, self.too_large = max_bytes, too_large

    def to_internal_value(self, data: Any) -> File[Any]:
        file = super().to_internal_value(data)
        if (file.size or 0) > self.max_bytes:
            raise ProblemError(self.too_large, field=str(self.field_name))
        return file


class ConsentRequestSerializer(serializers.Serializer[Any]):
    """The consent that is given with recordings. Its fields come first: nothing is kept without it."""

    consent_attestation = AttestationField()
    consent_text_sha256 = TextField(required=False, help_text=_CONSENT_TEXT)

    def read_consent(self) -> dict[str, str]:
        """Return the consent as the services take it."""
        return {
            "attestation": self.validated_data["consent_attestation"],
            "consent_text_sha256": self.validated_data.get("consent_text_sha256", ""),
        }


class CreateSerializer(ConsentRequestSerializer):
    """What a voice is built from."""

    name = NameField(max_length=services.MAX_NAME_LENGTH, help_text="At most 80 characters.")
    audio = UploadField(
        max_bytes=services.MAX_UPLOAD_BYTES,
        too_large="audio_too_large",
        help_text="WAV, MP3, FLAC, OGG, M4A or WebM; 3 to 60 s of speech, at most 20 MB.",
    )
    language = LanguageField(required=False, help_text="Without it: what the recogniser hears.")


class AddRecordingSerializer(ConsentRequestSerializer):
    """Another recording of the same person."""

    audio = UploadField(max_bytes=services.MAX_UPLOAD_BYTES, too_large="audio_too_large")


class ImportSerializer(ConsentRequestSerializer):
    """A voice that was exported."""

    file = UploadField(
        max_bytes=services.MAX_ARCHIVE_BYTES,
        too_large="archive_too_large",
        allow_empty_file=True,
        help_text="A file made by export.",
    )


class ChangeSerializer(serializers.Serializer[Any]):
    name = NameField(max_length=services.MAX_NAME_LENGTH, required=False)
    language = LanguageField(required=False)
    is_shared = FlagField(required=False, help_text="true: operators, of their own; false: any owner.")


class PreviewRequestSerializer(serializers.Serializer[Any]):
    text = PreviewTextField(max_length=services.MAX_PREVIEW_TEXT, help_text="At most 200 characters.")
    quality = QualityField(required=False)


class PreferenceChangeSerializer(serializers.Serializer[Any]):
    quality = QualityField()


class ListQuerySerializer(serializers.Serializer[Any]):
    """The query of the list; its pages are REST framework's."""

    scope = ScopeField(required=False)
