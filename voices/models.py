"""Whose voice an answer is spoken in."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Self

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User


class Language(models.TextChoices):
    CHINESE = "zh", _("Mandarin")
    ENGLISH = "en", _("English")


class Gender(models.TextChoices):
    FEMALE = "female", _("female")
    MALE = "male", _("male")


class VoiceProfileQuerySet(models.QuerySet["VoiceProfile"]):
    def usable_by(self, user: User | AnonymousUser) -> Self:
        """Stock voices and the user's own."""
        return self.filter(Q(owner__isnull=True) | Q(owner_id=user.pk)) if user.pk else self.none()

    def for_choosing(self) -> Self:
        """In the order of a menu: own voices first, then stock; Mandarin before English; by name."""
        return self.order_by(F("owner_id").asc(nulls_last=True), "-language", "name", "pk")


class VoiceProfile(models.Model):
    """A voice to be answered in. Without an owner it is a stock voice, for everybody."""

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("owner"),
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="voice_profiles",
    )
    name = models.CharField(_("name"), max_length=80)
    language = models.CharField(_("language"), max_length=8, choices=Language)
    gender = models.CharField(_("gender"), max_length=8, choices=Gender, blank=True)
    #: The engine's own key of the voice, such as "zf_xiaoxiao".
    engine_voice = models.CharField(_("engine's voice"), max_length=80)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)

    objects = VoiceProfileQuerySet.as_manager()

    class Meta:
        verbose_name = _("voice")
        verbose_name_plural = _("voices")
        constraints = (
            models.CheckConstraint(condition=~Q(name=""), name="voice_profile_has_a_name"),
            models.CheckConstraint(condition=~Q(engine_voice=""), name="voice_profile_has_an_engine_voice"),
            models.CheckConstraint(condition=Q(language__in=Language.values), name="voice_profile_language_is_known"),
            models.CheckConstraint(condition=Q(gender__in=["", *Gender.values]), name="voice_profile_gender_is_known"),
            models.UniqueConstraint(
                fields=["engine_voice"], condition=Q(owner__isnull=True), name="voice_profile_one_stock_row_per_voice"
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def is_stock(self) -> bool:
        return self.owner_id is None
