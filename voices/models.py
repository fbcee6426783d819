"""Voices, the recordings and consents they are built from, the jobs that build them, previews and preferences."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Self

from django.conf import settings
from django.db import models
from django.db.models import F, Q, Sum
from django.db.models.functions import Coalesce
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User


class Language(models.TextChoices):
    CHINESE = "zh", _("Mandarin")
    ENGLISH = "en", _("English")


class Gender(models.TextChoices):
    FEMALE = "female", _("female")
    MALE = "male", _("male")


class Kind(models.TextChoices):
    """How like a person a voice is: not at all, the nearest that the engine has, or cloned from a recording."""

    STOCK = "stock", _("stock")
    MATCHED = "matched", _("matched")
    CLONED = "cloned", _("cloned")


class Availability(models.TextChoices):
    """Whether a voice may be used for replies."""

    AVAILABLE = "available", _("available")
    DISABLED = "disabled", _("disabled")
    #: Its owner has deleted it, and the storage still has files of it.
    DELETING = "deleting", _("being deleted")


class State(models.TextChoices):
    """What the API says of a voice: computed from its availability and its build job."""

    PENDING = "pending", _("waiting")
    EXTRACTING = "extracting", _("being made")
    READY = "ready", _("ready")
    FAILED = "failed", _("failed")
    DISABLED = "disabled", _("disabled")
    DELETING = "deleting", _("being deleted")


class JobKind(models.TextChoices):
    BUILD = "build", _("building")
    FIT = "fit", _("fitting")


class JobState(models.TextChoices):
    QUEUED = "queued", _("waiting")
    RUNNING = "running", _("running")
    DONE = "done", _("done")
    FAILED = "failed", _("failed")
    CANCELLED = "cancelled", _("cancelled")

    @classmethod
    def active(cls) -> tuple[JobState, ...]:
        return cls.QUEUED, cls.RUNNING


class Step(models.TextChoices):
    """The steps of a build job, in this order."""

    QUEUED = "queued", _("waiting for its turn")
    RECOGNISING = "recognising", _("listening to what was said")
    EMBEDDING = "embedding", _("learning the voice")
    CLIP = "clip", _("cutting the reference")
    MATCHING = "matching", _("finding the nearest voice")


class FittingState(models.TextChoices):
    """What the API says of a fitting: the state of its job, or that there is none."""

    NONE = "none", _("not fitted")
    QUEUED = "queued", _("waiting")
    RUNNING = "running", _("being fitted")
    DONE = "done", _("fitted")
    FAILED = "failed", _("failed")
    CANCELLED = "cancelled", _("cancelled")


class Quality(models.TextChoices):
    FAST = "fast", _("fast")
    HIGH_QUALITY = "high_quality", _("high quality")


class Attestation(models.TextChoices):
    OWN_VOICE = "own_voice", _("my own voice")
    PERMISSION = "permission", _("with permission")


class ConsentQuerySet(models.QuerySet["Consent"]):
    def of_voice(self, profile: VoiceProfile) -> Self:
        """The consents of a voice: its own, and those of its recordings."""
        recordings = Recording.objects.filter(profile=profile)
        return self.filter(Q(profile=profile) | Q(pk__in=recordings.values("consent")))

    def oldest_first(self) -> Self:
        return self.order_by("given_at", "pk")


class Consent(models.Model):
    """What a person declared with recordings of a voice: without one no recording is stored and no voice is built."""

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    given_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("given by"), on_delete=models.CASCADE, related_name="voice_consents"
    )
    given_at = models.DateTimeField(_("given at"), auto_now_add=True)
    attestation = models.CharField(_("attestation"), max_length=16, choices=Attestation)
    #: The wording as it was shown, in the language it was shown in.
    text = models.TextField(_("wording"))
    text_sha256 = models.CharField(_("SHA-256 of the wording"), max_length=64)

    objects = ConsentQuerySet.as_manager()

    class Meta:
        verbose_name = _("consent")
        verbose_name_plural = _("consents")
        constraints = (
            models.CheckConstraint(
                condition=Q(attestation__in=Attestation.values), name="voice_consent_attestation_is_known"
            ),
            models.CheckConstraint(condition=~Q(text="") & ~Q(text_sha256=""), name="voice_consent_has_its_wording"),
        )

    def __str__(self) -> str:
        return f"{self.get_attestation_display()}, {self.given_at:%Y-%m-%d}"


#: A build is cancelled only with its voice, whose availability then comes first.
_STATE_OF_BUILD = {
    JobState.QUEUED: State.PENDING,
    JobState.RUNNING: State.EXTRACTING,
    JobState.DONE: State.READY,
    JobState.FAILED: State.FAILED,
    JobState.CANCELLED: State.FAILED,
}


class VoiceProfileQuerySet(models.QuerySet["VoiceProfile"]):
    def owned_by(self, user: User | AnonymousUser) -> Self:
        return self.filter(owner_id=user.pk) if user.pk else self.none()

    def speakable(self) -> Self:
        """Voices that can be used now. One that is being rebuilt sounds as before until its job is done."""
        return self.filter(Q(owner__isnull=True) | Q(version__gt=0), availability=Availability.AVAILABLE)

    def in_state(self, state: State) -> Self:
        """Voices whose `state` is this one."""
        if state in (State.DISABLED, State.DELETING):
            return self.filter(availability=state.value)
        jobs = [job for job, of_job in _STATE_OF_BUILD.items() if of_job is state]
        built = VoiceJob.objects.filter(kind=JobKind.BUILD, state__in=jobs)
        # A stock voice is never built.
        is_so = Q(pk__in=built.values("profile")) | (Q(owner__isnull=True) if state is State.READY else Q())
        return self.filter(is_so, availability=Availability.AVAILABLE)

    def visible_to(self, user: User | AnonymousUser) -> Self:
        """Stock voices, the user's own in every state, and what others share that can be used."""
        if not user.pk:
            return self.none()
        shared = VoiceProfile.objects.filter(is_shared=True).speakable()
        return self.filter(Q(owner__isnull=True) | Q(owner_id=user.pk) | Q(pk__in=shared.values("pk")))

    def usable_by(self, user: User | AnonymousUser) -> Self:
        """Voices that the user's replies can be spoken in now."""
        return self.visible_to(user).speakable()

    def for_choosing(self) -> Self:
        """In the order of a menu: people's voices first, then stock; Mandarin before English; by name."""
        return self.order_by(F("owner_id").asc(nulls_last=True), "-language", "name", "pk")

    def newest_first(self) -> Self:
        return self.order_by("-created_at", "pk")

    def with_size(self) -> Self:
        """Add `size_bytes`: the size of a voice's files, previews aside."""
        return self.annotate(size_bytes=Coalesce(Sum("recordings__size_bytes"), 0) + F("clip_bytes"))


def profile_folder(profile: VoiceProfile) -> str:
    """The folder of all files of a voice in the storage."""
    return f"voices/{profile.owner_id or 'stock'}/{profile.pk}"


def clip_path(profile: VoiceProfile, filename: str) -> str:
    return f"{profile_folder(profile)}/{uuid.uuid4().hex}.flac"


class VoiceProfile(models.Model):
    """
    A voice for replies. Without an owner it is a stock voice, for all users.

    `embedding` is 256 little-endian float32 of unit length, comparable with those of the same `encoder` only.
    `version` is incremented when it sounds different. `style` is what fitting found, in the engine's own form; it
    belongs to `engine_voice`.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("owner"),
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="voice_profiles",
    )
    # Restricted, not cascaded: a consent is deleted with its voice, not a voice with its consent.
    consent = models.OneToOneField(
        Consent, verbose_name=_("consent"), on_delete=models.RESTRICT, null=True, blank=True, related_name="profile"
    )
    name = models.CharField(_("name"), max_length=80)
    language = models.CharField(_("language"), max_length=8, choices=Language)
    #: The owner has not chosen one: the build sets what the recogniser hears.
    is_language_guessed = models.BooleanField(_("language is guessed"), default=False, editable=False)
    gender = models.CharField(_("gender"), max_length=8, choices=Gender, blank=True)
    kind = models.CharField(_("kind"), max_length=8, choices=Kind, default=Kind.MATCHED)
    is_shared = models.BooleanField(_("shared with everybody"), default=False)

    availability = models.CharField(
        _("availability"), max_length=12, choices=Availability, default=Availability.AVAILABLE
    )

    version = models.PositiveIntegerField(_("version"), default=0)
    encoder = models.CharField(_("encoder"), max_length=80, blank=True)
    embedding = models.BinaryField(_("embedding"), max_length=1024, blank=True)
    clip = models.FileField(_("reference clip"), upload_to=clip_path, max_length=200, blank=True)
    clip_transcript = models.TextField(_("transcript of the reference clip"), blank=True)
    clip_bytes = models.PositiveIntegerField(_("size of the reference clip"), default=0)
    #: The engine's own key of the voice, such as "zf_xiaoxiao", or a blend of several: "zf_xiaoxiao:0.6+zm_yunxi:0.4".
    engine_voice = models.CharField(_("engine's voice"), max_length=200, blank=True)
    similarity = models.FloatField(_("similarity"), null=True, blank=True)

    fitting_similarity = models.FloatField(_("similarity after fitting"), null=True, blank=True)
    style = models.BinaryField(_("fitted style"), max_length=1024, blank=True)

    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    last_used_at = models.DateTimeField(_("last used at"), null=True, blank=True)

    objects = VoiceProfileQuerySet.as_manager()

    class Meta:
        verbose_name = _("voice")
        verbose_name_plural = _("voices")
        permissions = (
            ("share_voiceprofile", _("Can share a voice with everybody")),
            ("listen_to_recording", _("Can listen to other people's recordings")),
        )
        indexes = (models.Index(fields=["owner", "-created_at"], name="voice_profile_by_owner"),)
        constraints = (
            models.CheckConstraint(condition=~Q(name=""), name="voice_profile_has_a_name"),
            models.CheckConstraint(
                condition=~Q(engine_voice="") | Q(kind=Kind.CLONED) | Q(owner__isnull=False, version=0),
                name="voice_profile_that_was_built_can_be_spoken",
            ),
            models.CheckConstraint(
                condition=Q(owner__isnull=True) | Q(consent__isnull=False), name="voice_profile_of_a_person_has_consent"
            ),
            models.CheckConstraint(
                condition=Q(owner__isnull=True, kind=Kind.STOCK) | Q(owner__isnull=False) & ~Q(kind=Kind.STOCK),
                name="voice_profile_is_stock_without_an_owner",
            ),
            models.CheckConstraint(condition=Q(language__in=Language.values), name="voice_profile_language_is_known"),
            models.CheckConstraint(condition=Q(gender__in=["", *Gender.values]), name="voice_profile_gender_is_known"),
            models.CheckConstraint(condition=Q(kind__in=Kind.values), name="voice_profile_kind_is_known"),
            models.CheckConstraint(
                condition=Q(availability__in=Availability.values), name="voice_profile_availability_is_known"
            ),
            models.UniqueConstraint(
                fields=["engine_voice"], condition=Q(owner__isnull=True), name="voice_profile_one_stock_row_per_voice"
            ),
        )

    def __str__(self) -> str:
        return self.name

    def is_owned_by(self, user: User | AnonymousUser) -> bool:
        return self.owner_id is not None and self.owner_id == user.pk

    @property
    def is_stock(self) -> bool:
        return self.owner_id is None

    @property
    def is_speakable(self) -> bool:
        return self.availability == Availability.AVAILABLE and (self.is_stock or self.version > 0)

    @property
    def build_job(self) -> VoiceJob | None:
        """None for a stock voice. A query, unless `jobs` are prefetched."""
        return self._read_job(JobKind.BUILD)

    @property
    def fit_job(self) -> VoiceJob | None:
        """None if it was not fitted since it was built. A query, unless `jobs` are prefetched."""
        return self._read_job(JobKind.FIT)

    def _read_job(self, kind: JobKind) -> VoiceJob | None:
        return next((job for job in self.jobs.all() if job.kind == kind), None)

    @property
    def state(self) -> State:
        if self.availability != Availability.AVAILABLE:
            return State(self.availability)
        job = self.build_job
        return _STATE_OF_BUILD[JobState(job.state)] if job else State.READY

    @property
    def qualities(self) -> list[str]:
        """The qualities it can be spoken in: high quality with a fitted style or an engine that clones."""
        if self.kind == Kind.CLONED or self.style:
            return [Quality.FAST.value, Quality.HIGH_QUALITY.value]
        return [Quality.FAST.value]

    @property
    def best_similarity(self) -> float | None:
        """The similarity of what it sounds like now."""
        return self.fitting_similarity if self.style else self.similarity


class VoiceJob(models.Model):
    """
    Background work on a voice, one row a kind: building it from its recordings, or fitting a style.

    A worker claims it with one conditional UPDATE and holds a lease: see `leases`.
    """

    profile = models.ForeignKey(VoiceProfile, verbose_name=_("voice"), on_delete=models.CASCADE, related_name="jobs")
    kind = models.CharField(_("kind"), max_length=8, choices=JobKind)
    state = models.CharField(_("state"), max_length=12, choices=JobState, default=JobState.QUEUED)
    #: Of a build; a fit has none.
    step = models.CharField(_("step"), max_length=12, choices=Step, blank=True)
    progress = models.FloatField(_("progress"), default=0.0)
    #: Of the worker's lease. A worker with another token has lost it.
    token = models.UUIDField(_("token"), null=True, blank=True, editable=False)
    #: The last heartbeat; without a token, when the job was last queued or handed to a worker, or when it failed.
    claimed_at = models.DateTimeField(_("claimed at"), null=True, blank=True, editable=False)
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0, editable=False)
    error = models.CharField(_("error"), max_length=40, blank=True)

    class Meta:
        verbose_name = _("job of a voice")
        verbose_name_plural = _("jobs of voices")
        indexes = (models.Index(fields=["state", "claimed_at"], name="voice_job_by_claim"),)
        constraints = (
            models.UniqueConstraint(fields=["profile", "kind"], name="voice_job_one_of_a_kind"),
            # Fitting takes minutes of the engines: one at a time, the others wait.
            models.UniqueConstraint(
                fields=["kind"],
                condition=Q(kind=JobKind.FIT, state=JobState.RUNNING),
                name="voice_job_one_running_fit",
            ),
            models.CheckConstraint(condition=Q(kind__in=JobKind.values), name="voice_job_kind_is_known"),
            models.CheckConstraint(condition=Q(state__in=JobState.values), name="voice_job_state_is_known"),
            models.CheckConstraint(condition=Q(step__in=["", *Step.values]), name="voice_job_step_is_known"),
            models.CheckConstraint(condition=Q(progress__gte=0, progress__lte=1), name="voice_job_progress_is_a_share"),
            models.CheckConstraint(
                condition=Q(token__isnull=False, claimed_at__isnull=False, state=JobState.RUNNING)
                | Q(token__isnull=True) & ~Q(state=JobState.RUNNING),
                name="voice_job_running_is_leased",
            ),
        )

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.get_state_display()}"


class BuildCountQuerySet(models.QuerySet["BuildCount"]):
    def add_one(self) -> None:
        """Count a build. In a transaction of PostgreSQL, other builds that end wait until it does: do it last."""
        self.bulk_create([self.model()], ignore_conflicts=True)
        self.update(value=F("value") + 1)

    def read(self) -> int:
        return self.values_list("value", flat=True).first() or 0


class BuildCount(models.Model):
    """How many builds of voices were ever done: one row, whatever becomes of the voices and their jobs."""

    id = models.PositiveSmallIntegerField(_("id"), primary_key=True, default=1, editable=False)
    value = models.PositiveBigIntegerField(_("value"), default=0)

    objects = BuildCountQuerySet.as_manager()

    class Meta:
        verbose_name = _("count of builds")
        verbose_name_plural = _("counts of builds")
        constraints = (models.CheckConstraint(condition=Q(id=1), name="voice_build_count_is_one_row"),)

    def __str__(self) -> str:
        return str(self.value)


def recording_path(recording: Recording, filename: str) -> str:
    return f"{profile_folder(recording.profile)}/{uuid.uuid4().hex}.flac"


class RecordingQuerySet(models.QuerySet["Recording"]):
    def oldest_first(self) -> Self:
        return self.order_by("created_at", "pk")


class Recording(models.Model):
    """
    What a voice is built from: FLAC, mono, at the rate it came with. The upload itself is not stored.

    `speaker_count` and `transcript` are written by the build job.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    profile = models.ForeignKey(
        VoiceProfile, verbose_name=_("voice"), on_delete=models.CASCADE, related_name="recordings"
    )
    #: Recordings that were uploaded together share one. Restricted, as that of the voice.
    consent = models.ForeignKey(
        Consent, verbose_name=_("consent"), on_delete=models.RESTRICT, related_name="recordings"
    )
    audio = models.FileField(_("audio"), upload_to=recording_path, max_length=200)
    size_bytes = models.PositiveIntegerField(_("size"))
    duration_s = models.FloatField(_("duration (s)"))
    speech_s = models.FloatField(_("speech (s)"))
    snr_db = models.FloatField(_("signal to noise (dB)"))
    clipped_share = models.FloatField(_("share of clipped samples"))
    speaker_count = models.PositiveSmallIntegerField(_("speakers"), null=True, blank=True)
    transcript = models.TextField(_("transcript"), blank=True)
    warnings = models.JSONField(_("warnings"), default=list, blank=True)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)

    objects = RecordingQuerySet.as_manager()

    class Meta:
        verbose_name = _("recording")
        verbose_name_plural = _("recordings")
        constraints = (
            models.CheckConstraint(condition=~Q(audio=""), name="voice_recording_has_audio"),
            models.CheckConstraint(
                condition=Q(speech_s__gt=0, duration_s__gte=F("speech_s")), name="voice_recording_has_speech"
            ),
            models.CheckConstraint(
                condition=Q(clipped_share__gte=0, clipped_share__lte=1), name="voice_recording_clipping_is_a_share"
            ),
        )

    def __str__(self) -> str:
        return f"{self.duration_s:.1f} s, {self.created_at:%Y-%m-%d}"


def preview_path(preview: Preview, filename: str) -> str:
    return f"{profile_folder(preview.profile)}/{uuid.uuid4().hex}.wav"


class Preview(models.Model):
    """A sentence spoken in a voice for one user, stored so that it need not be synthesised again."""

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    profile = models.ForeignKey(
        VoiceProfile, verbose_name=_("voice"), on_delete=models.CASCADE, related_name="previews"
    )
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("requested by"), on_delete=models.CASCADE, related_name="+"
    )
    text_sha256 = models.CharField(_("SHA-256 of the text"), max_length=64)
    voice_version = models.PositiveIntegerField(_("version of the voice"))
    #: Requested, and used.
    quality = models.CharField(_("quality"), max_length=16, choices=Quality)
    made_with = models.CharField(_("made with"), max_length=16, choices=Quality)
    audio = models.FileField(_("audio"), upload_to=preview_path, max_length=200)
    duration_ms = models.PositiveIntegerField(_("duration (ms)"))
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)

    class Meta:
        verbose_name = _("preview")
        verbose_name_plural = _("previews")
        constraints = (
            models.UniqueConstraint(
                fields=["profile", "requested_by", "text_sha256", "voice_version", "quality"],
                name="voice_preview_is_made_once",
            ),
            models.CheckConstraint(
                condition=Q(quality__in=Quality.values, made_with__in=Quality.values),
                name="voice_preview_quality_is_known",
            ),
        )

    def __str__(self) -> str:
        return f"{self.profile_id} {self.quality} {self.duration_ms} ms"


class VoicePreference(models.Model):
    """The voice and quality that a user prefers. Without a voice: the default one for the language of the reply."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, verbose_name=_("user"), on_delete=models.CASCADE, related_name="voice_preference"
    )
    profile = models.ForeignKey(
        VoiceProfile, verbose_name=_("voice"), on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    quality = models.CharField(_("quality"), max_length=16, choices=Quality, default=Quality.FAST)

    class Meta:
        verbose_name = _("preferred voice")
        verbose_name_plural = _("preferred voices")
        constraints = (
            models.CheckConstraint(condition=Q(quality__in=Quality.values), name="voice_preference_quality_is_known"),
        )

    def __str__(self) -> str:
        return f"{self.user_id}: {self.profile_id or '—'}"
