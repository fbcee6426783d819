"""Conversations, their turns, the search index over them, and how long they are retained."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from django.conf import settings
from django.db import connections, models
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from avatar_site.lib.text import clean_line
from conversations import search
from voices.models import Quality, VoiceProfile

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User


class ConversationQuerySet(models.QuerySet["Conversation"]):
    def owned_by(self, user: User | AnonymousUser) -> Self:
        return self.filter(owner_id=user.pk) if user.pk else self.none()

    def with_turns(self) -> Self:
        """Those that have turns."""
        return self.filter(last_turn_at__isnull=False)

    def without_turns_since(self, moment: dt.datetime) -> Self:
        """Those without turns, begun or last resumed before `moment`."""
        return self.filter(last_turn_at__isnull=True, created_at__lt=moment).not_opened_since(moment)

    def not_opened_since(self, moment: dt.datetime) -> Self:
        return self.filter(Q(opened_at=None) | Q(opened_at__lt=moment))

    def newest_first(self) -> Self:
        return self.order_by("-last_turn_at", "-pk")

    def oldest_first(self) -> Self:
        return self.order_by("last_turn_at", "pk")

    def going_on(self, *, since: dt.datetime | None = None, before: dt.datetime | None = None) -> Self:
        """Those that had begun before `before` and had their last turn at `since` or later."""
        found = self
        if since is not None:
            found = found.filter(last_turn_at__gte=since)
        if before is not None:
            found = found.filter(created_at__lt=before)
        return found

    def spoken_by(self, voice_profile_id: uuid.UUID) -> Self:
        # Not EXISTS: SQLite would scan all turns of the voice for each conversation.
        return self.filter(pk__in=Turn.objects.filter(voice_profile_id=voice_profile_id).values("conversation"))

    def spoken_by_deleted_voices(self) -> Self:
        spoken = Turn.objects.filter(voice_profile=None, voice_name=DELETED_VOICE)
        return self.filter(pk__in=spoken.values("conversation"))

    def matching(self, query: str, *, owner: User) -> Self:
        """
        Those of `owner` with a turn that has all terms of the query, or with the query in their title.

        The index has a column for the owner, so that the rows of others cost nothing.
        """
        # SQLite would end the pattern at a NUL, PostgreSQL refuses it.
        query = query.replace("\0", " ")
        in_title = Q(title__icontains=query.strip())
        terms = search.parse_query(query)
        if not terms:
            return self.filter(in_title)
        return self.filter(in_title | Q(pk__in=_find_conversations(self.db, terms, owner_id=owner.pk)))

    def with_figures(self) -> Self:
        """Add `turn_count` (without superseded turns), `audio_ms` and `audio_bytes`."""
        turns = Turn.objects.filter(conversation=OuterRef("pk")).order_by().values("conversation")
        return self.annotate(
            turn_count=Coalesce(Subquery(turns.filter(is_superseded=False).annotate(n=Count("pk")).values("n")), 0),
            audio_ms=Coalesce(Subquery(turns.annotate(n=Sum("audio_duration_ms")).values("n")), 0),
            audio_bytes=Coalesce(Subquery(turns.annotate(n=Sum("audio_bytes")).values("n")), 0),
        )


def _find_conversations(database: str, terms: Sequence[search.Term], *, owner_id: int) -> RawSQL:
    if connections[database].vendor == "sqlite":
        # CROSS: makes the planner begin with the index.
        sql = (
            "SELECT s.conversation_id FROM conversations_turnsearch_fts f CROSS JOIN conversations_turnsearch s"
            " ON s.id = f.rowid WHERE conversations_turnsearch_fts MATCH %s"
        )
        return RawSQL(sql, [search.write_fts5(terms, owner_id=owner_id)])  # noqa: S611 — parameters, not pasted
    sql = (
        "SELECT conversation_id FROM conversations_turnsearch"
        " WHERE owner_id = %s AND to_tsvector('simple', text) @@ to_tsquery('simple', %s)"
    )
    return RawSQL(sql, [owner_id, search.write_tsquery(terms)])  # noqa: S611 — the same


class Conversation(models.Model):
    """A conversation of one person with the avatar, over any number of calls."""

    TITLE_LENGTH = 80

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("owner"), on_delete=models.CASCADE, related_name="conversations"
    )
    title = models.CharField(_("title"), max_length=TITLE_LENGTH, blank=True)
    #: Exempt from the retention.
    is_pinned = models.BooleanField(_("pinned"), default=False)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    #: None if it has no turns, or none any more.
    last_turn_at = models.DateTimeField(_("last turn at"), null=True, blank=True)
    #: When a call last began or resumed it: that call may still be going on, even without turns.
    opened_at = models.DateTimeField(_("opened at"), null=True, blank=True)

    objects = ConversationQuerySet.as_manager()

    class Meta:
        verbose_name = _("conversation")
        verbose_name_plural = _("conversations")
        permissions = (("view_content", _("Can open what was said in other people's conversations")),)
        indexes = (
            models.Index(fields=["owner", "-last_turn_at", "-id"], name="conversation_in_order"),
            models.Index(fields=["created_at"], name="conversation_by_creation", condition=Q(last_turn_at=None)),
        )

    def __str__(self) -> str:
        # Operators see this. The title would show them what was said.
        return str(self.pk)

    def derive_title(self) -> str:
        """Return the title that the first remembered turn of the user makes; empty if there is none."""
        first = self.turns.remembered().filter(speaker=Speaker.USER).in_order().first()
        return make_title(first.text) if first else ""

    @property
    def audio_folder(self) -> str:
        """Where the audio of its turns lies in the storage."""
        return f"{AUDIO_ROOT}/{self.owner_id}/{self.pk}"


def make_title(text: str) -> str:
    """Make a title of the text of a turn."""
    line = clean_line(text)
    if len(line) <= Conversation.TITLE_LENGTH:
        return line
    return line[: Conversation.TITLE_LENGTH - 1].rstrip() + "…"


#: The folder of turns' audio in the storage.
AUDIO_ROOT = "conversations"


#: What the audio of a turn is called for a moment when its file was lost: the tombstone log tells it from audio that
#: was removed. A restore may bring it back.
LOST_AUDIO = "lost:"


def audio_path(turn: Turn, filename: str) -> str:
    """Return the name of a turn's audio in the storage: the turn's id with the suffix of `filename`."""
    return f"{turn.conversation.audio_folder}/{turn.pk}.{filename.rpartition('.')[2]}"


class Speaker(models.TextChoices):
    USER = "user", _("user")
    AVATAR = "avatar", _("avatar")


class TurnQuerySet(models.QuerySet["Turn"]):
    def owned_by(self, user: User | AnonymousUser) -> Self:
        return self.filter(conversation__owner_id=user.pk) if user.pk else self.none()

    def in_order(self) -> Self:
        return self.order_by("sequence", "pk")

    def remembered(self) -> Self:
        """Those that go into the language model's prompt: with text, and not superseded."""
        return self.filter(is_superseded=False).exclude(text="")

    def expired(self, before: dt.datetime, *, owners: QuerySet[User] | None = None) -> Self:
        """Those from before a moment, except in pinned conversations."""
        turns = self.filter(created_at__lt=before, conversation__is_pinned=False)
        return turns if owners is None else turns.filter(conversation__owner__in=owners)


#: `voice_name` of turns whose voice was deleted, and its name with it.
DELETED_VOICE = "—"
#: In filters, instead of an id: any deleted voice. Turns do not tell them apart.
ANY_DELETED_VOICE = "deleted"


def forget_voice(collector: Any, field: Any, turns: Any, using: str) -> None:
    """An `on_delete` that keeps the turns of a deleted voice, and clears its name from them."""
    models.SET_NULL(collector, field, turns, using)
    collector.add_field_update(Turn._meta.get_field("voice_name"), DELETED_VOICE, turns)


class Turn(models.Model):
    """
    One speaker's contribution.

    Its id is made by the live call and is the one in the socket's messages. `text` of an interrupted turn ends where
    playout ended. The avatar's turns have `latency`, in milliseconds from the end of the user's speech, and the
    `voice_profile` and `quality` of their audio. `heard_text` is the transcript of a user's turn that was corrected.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    conversation = models.ForeignKey(
        Conversation, verbose_name=_("conversation"), on_delete=models.CASCADE, related_name="turns"
    )
    sequence = models.PositiveIntegerField(_("sequence"))
    speaker = models.CharField(_("speaker"), max_length=8, choices=Speaker)
    text = models.TextField(_("text"), blank=True)
    heard_text = models.TextField(_("heard as"), blank=True)
    corrected_at = models.DateTimeField(_("corrected at"), null=True, blank=True)
    #: Follows a turn that was corrected and replied to again: no longer a part of the conversation.
    is_superseded = models.BooleanField(_("superseded"), default=False)
    language = models.CharField(_("language"), max_length=8, blank=True)
    audio = models.FileField(_("audio"), upload_to=audio_path, max_length=200, blank=True)
    audio_duration_ms = models.PositiveIntegerField(_("audio duration (ms)"), default=0)
    audio_bytes = models.PositiveIntegerField(_("audio size (bytes)"), default=0)
    was_interrupted = models.BooleanField(_("was interrupted"), default=False)
    #: A reply that is being spoken, or was when its process was killed.
    is_in_progress = models.BooleanField(_("in progress"), default=False)
    voice_profile = models.ForeignKey(
        VoiceProfile,
        verbose_name=_("voice"),
        on_delete=forget_voice,
        null=True,
        blank=True,
        related_name="turns",
    )
    #: The voice's name at that time; `DELETED_VOICE` once it was deleted.
    voice_name = models.CharField(_("name of the voice"), max_length=80, blank=True)
    quality = models.CharField(_("quality"), max_length=16, choices=Quality, blank=True)
    latency = models.JSONField(_("latency (ms)"), null=True, blank=True)
    #: When it was said. It may have been saved later.
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)

    objects = TurnQuerySet.as_manager()

    class Meta:
        verbose_name = _("turn")
        verbose_name_plural = _("turns")
        constraints = (
            models.UniqueConstraint(fields=["conversation", "sequence"], name="turn_has_its_own_place"),
            models.CheckConstraint(condition=Q(speaker__in=Speaker.values), name="turn_speaker_is_known"),
            models.CheckConstraint(condition=Q(quality__in=["", *Quality.values]), name="turn_quality_is_known"),
            models.CheckConstraint(
                condition=Q(heard_text="") | Q(speaker=Speaker.USER, corrected_at__isnull=False),
                name="turn_corrected_is_the_users",
            ),
            # So that a reply whose process was killed reads as interrupted.
            models.CheckConstraint(
                condition=Q(is_in_progress=False) | Q(speaker=Speaker.AVATAR, was_interrupted=True),
                name="turn_in_progress_reads_as_interrupted",
            ),
        )
        indexes = (
            models.Index(fields=["created_at"], name="turn_by_age"),
            models.Index(fields=["voice_profile", "conversation"], name="turn_by_voice"),
            # For one person's filter: which voices there are, and which conversations had a deleted one.
            models.Index(
                fields=["conversation", "voice_profile"],
                name="turn_voice_in_conversation",
                condition=Q(voice_profile__isnull=False),
            ),
            models.Index(
                fields=["voice_name", "conversation"], name="turn_by_deleted_voice", condition=Q(voice_profile=None)
            ),
        )

    def __str__(self) -> str:
        # Without its text, as with conversations.
        return f"{self.sequence} {self.speaker}"

    @property
    def audio_name(self) -> str:
        """The name of its audio in the storage; empty if it has none."""
        return self.audio.name or ""

    @property
    def can_be_corrected(self) -> bool:
        return self.speaker == Speaker.USER and not self.is_superseded

    @property
    def voice_was_deleted(self) -> bool:
        return bool(self.voice_name) and self.voice_profile_id is None


class TurnSearch(models.Model):
    """
    A turn's tokens, as the search index has them; see `conversations.search`.

    A migration makes the index: on SQLite an FTS5 table, which triggers update with this one (a migration that alters
    this table has to create them again), on PostgreSQL a GIN index.
    """

    turn = models.OneToOneField(Turn, verbose_name=_("turn"), on_delete=models.CASCADE, related_name="words")
    conversation = models.ForeignKey(
        Conversation, verbose_name=_("conversation"), on_delete=models.CASCADE, related_name="+"
    )
    #: Denormalised, so that the index itself can filter by owner.
    owner_id = models.BigIntegerField(_("owner"), db_index=True)
    text = models.TextField(_("words"), blank=True)

    class Meta:
        verbose_name = _("words of a turn")
        verbose_name_plural = _("words of turns")

    def __str__(self) -> str:
        return str(self.turn_id)


class RetentionChoice(models.Model):
    """A person's own retention in days. Empty: the site's. The shorter of the two applies."""

    MAX_DAYS = 3650

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, verbose_name=_("user"), on_delete=models.CASCADE, related_name="retention_choice"
    )
    audio_days = models.PositiveIntegerField(_("days for audio"), null=True, blank=True)
    text_days = models.PositiveIntegerField(_("days for text"), null=True, blank=True)

    class Meta:
        verbose_name = _("retention choice")
        verbose_name_plural = _("retention choices")
        constraints = (
            models.CheckConstraint(
                condition=(Q(audio_days=None) | Q(audio_days__gte=1)) & (Q(text_days=None) | Q(text_days__gte=1)),
                name="retention_choice_is_a_day_at_least",
            ),
        )

    def __str__(self) -> str:
        return f"{self.user_id}: {self.audio_days or '—'} / {self.text_days or '—'}"


class RetentionRun(models.Model):
    """One run of the retention, and what it removed. Audio of removed turns is counted as well."""

    started_at = models.DateTimeField(_("started at"))
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)
    audio_files = models.PositiveIntegerField(_("audio files"), default=0)
    audio_bytes = models.PositiveBigIntegerField(_("bytes of audio"), default=0)
    turns = models.PositiveIntegerField(_("turns"), default=0)
    conversations = models.PositiveIntegerField(_("conversations"), default=0)

    class Meta:
        verbose_name = _("retention run")
        verbose_name_plural = _("retention runs")

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d %H:%M}"


class StorageCheck(models.Model):
    """One comparison of the files in the storage with the turns that name them, before anything was removed."""

    checked_at = models.DateTimeField(_("checked at"))
    #: So much was missing that nothing was removed.
    was_refused = models.BooleanField(_("was refused"), default=False)
    files = models.PositiveIntegerField(_("files"), default=0)
    files_without_turn = models.PositiveIntegerField(_("files without a turn"), default=0)
    turns = models.PositiveIntegerField(_("turns with audio"), default=0)
    turns_without_file = models.PositiveIntegerField(_("turns whose file is missing"), default=0)

    class Meta:
        verbose_name = _("storage check")
        verbose_name_plural = _("storage checks")

    def __str__(self) -> str:
        return f"{self.checked_at:%Y-%m-%d %H:%M}"
