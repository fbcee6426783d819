"""What was said, by whom, in which order."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from voices.models import Quality, VoiceProfile

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User


class ConversationQuerySet(models.QuerySet["Conversation"]):
    def owned_by(self, user: User | AnonymousUser) -> Self:
        return self.filter(owner_id=user.pk) if user.pk else self.none()


class Conversation(models.Model):
    """One person's conversation with the avatar, over as many calls as they like."""

    TITLE_LENGTH = 80

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("owner"), on_delete=models.CASCADE, related_name="conversations"
    )
    title = models.CharField(_("title"), max_length=TITLE_LENGTH, blank=True)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    last_turn_at = models.DateTimeField(_("last turn at"), null=True, blank=True)

    objects = ConversationQuerySet.as_manager()

    class Meta:
        verbose_name = _("conversation")
        verbose_name_plural = _("conversations")
        indexes = (models.Index(fields=["owner", "-last_turn_at"], name="conversation_by_owner"),)

    def __str__(self) -> str:
        return self.title or str(self.pk)


def audio_path(turn: Turn, filename: str) -> str:
    """Where a turn's audio lies in the storage; its name is the turn's, whatever it was called before."""
    return f"conversations/{turn.conversation.owner_id}/{turn.conversation_id}/{turn.pk}.flac"


class Speaker(models.TextChoices):
    USER = "user", _("user")
    AVATAR = "avatar", _("avatar")


class TurnQuerySet(models.QuerySet["Turn"]):
    def owned_by(self, user: User | AnonymousUser) -> Self:
        return self.filter(conversation__owner_id=user.pk) if user.pk else self.none()

    def in_order(self) -> Self:
        return self.order_by("sequence", "pk")


class Turn(models.Model):
    """
    One speaker's contribution.

    Its id is made by the live call, so that what went over the wire and what was kept have the same name. `text` of an
    interrupted turn is what was heard, not what was meant. `latency` belongs to the avatar's turns: milliseconds from
    the end of the user's speech. So do `voice_profile` and `quality`: what its audio was spoken in.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    conversation = models.ForeignKey(
        Conversation, verbose_name=_("conversation"), on_delete=models.CASCADE, related_name="turns"
    )
    sequence = models.PositiveIntegerField(_("sequence"))
    speaker = models.CharField(_("speaker"), max_length=8, choices=Speaker)
    text = models.TextField(_("text"), blank=True)
    language = models.CharField(_("language"), max_length=8, blank=True)
    audio = models.FileField(_("audio"), upload_to=audio_path, max_length=200, blank=True)
    audio_duration_ms = models.PositiveIntegerField(_("audio duration (ms)"), default=0)
    was_interrupted = models.BooleanField(_("was interrupted"), default=False)
    voice_profile = models.ForeignKey(
        VoiceProfile,
        verbose_name=_("voice"),
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="turns",
    )
    #: Stays when the voice goes.
    has_own_voice = models.BooleanField(_("spoken in a chosen voice"), default=False)
    quality = models.CharField(_("quality"), max_length=16, choices=Quality, blank=True)
    latency = models.JSONField(_("latency (ms)"), null=True, blank=True)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)

    objects = TurnQuerySet.as_manager()

    class Meta:
        verbose_name = _("turn")
        verbose_name_plural = _("turns")
        constraints = (
            models.UniqueConstraint(fields=["conversation", "sequence"], name="turn_has_its_own_place"),
            models.CheckConstraint(condition=Q(speaker__in=Speaker.values), name="turn_speaker_is_known"),
            models.CheckConstraint(condition=Q(quality__in=["", *Quality.values]), name="turn_quality_is_known"),
            models.CheckConstraint(
                condition=Q(voice_profile__isnull=True) | Q(has_own_voice=True), name="turn_knows_that_it_had_a_voice"
            ),
        )

    def __str__(self) -> str:
        return f"{self.sequence} {self.speaker}: {self.text[:40]}"

    @property
    def voice_was_deleted(self) -> bool:
        return self.has_own_voice and self.voice_profile_id is None
