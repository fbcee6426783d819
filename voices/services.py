"""The verbs of voices, and what other apps use of them."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import DatabaseError, transaction
from django.db.models import F, Sum
from django.utils import timezone

from avatar_site.lib import inference_client
from avatar_site.lib.handover import delay_on_commit
from avatar_site.lib.live_calls import tell_voice_changed
from avatar_site.lib.problems import ProblemError
from avatar_site.lib.stored_files import delete_file, remove_files
from avatar_site.lib.text import clean_line
from voices import deletion, files, leases, previews, tasks
from voices.archive import MAX_ARCHIVE_BYTES as MAX_ARCHIVE_BYTES
from voices.archive import (
    MAX_RECORDINGS,
    MAX_RECORDINGS_BYTES,
    Unreadable,
    read_archive,
    write_archive,
)
from voices.consents import find_consent
from voices.files import delete_orphans as delete_orphans
from voices.files import read_doubtful_sweep as read_doubtful_sweep
from voices.models import (
    Attestation,
    Availability,
    Consent,
    JobKind,
    JobState,
    Kind,
    Language,
    Preview,
    Quality,
    Recording,
    State,
    VoiceJob,
    VoicePreference,
    VoiceProfile,
)
from voices.recordings.uploads import MAX_UPLOAD_BYTES as MAX_UPLOAD_BYTES
from voices.recordings.uploads import ExaminedRecording, examine_upload

if TYPE_CHECKING:
    from django.contrib.auth.models import User

logger = logging.getLogger(__name__)

MAX_NAME_LENGTH = 80
MAX_PREVIEW_TEXT = 200
#: The problem of a voice that is not used for replies.
_UNAVAILABLE: dict[str, str] = {Availability.DISABLED: "disabled", Availability.DELETING: "deleting"}
#: A voice that was never built, or whose recordings are all gone.
_UNBUILT: dict[str, Any] = {
    "version": 0,
    "embedding": b"",
    "clip": "",
    "clip_transcript": "",
    "clip_bytes": 0,
    "engine_voice": "",
    "kind": Kind.MATCHED,
    "similarity": None,
    "fitting_similarity": None,
    "style": b"",
}
_CANCELLED: dict[str, Any] = {"state": JobState.CANCELLED, "token": None, "claimed_at": None}


def create_voice_profile(
    *, owner: User, name: str, audio: bytes, attestation: str, consent_text_sha256: str = "", language: str = ""
) -> VoiceProfile:
    """
    Create a voice from a recording. It is pending until a worker has built it.

    `consent_text_sha256` says which wording of the attestation was shown; without it, that of the active language.
    Without `language` it becomes what the recogniser hears. Raises ProblemError: then nothing is stored.
    """
    consent = declare_consent(user=owner, attestation=attestation, text_sha256=consent_text_sha256)
    name = check_name(name)
    check_language(language)
    return _create(name, [examine_upload(audio)], consent=consent, language=language)


def import_voice_profile(*, owner: User, file: bytes, attestation: str, consent_text_sha256: str = "") -> VoiceProfile:
    """
    Create a voice from an exported one: its recordings, with a new consent.

    Raises ProblemError: then nothing is stored.
    """
    consent = declare_consent(user=owner, attestation=attestation, text_sha256=consent_text_sha256)
    if len(file) > MAX_ARCHIVE_BYTES:
        raise ProblemError("archive_too_large", field="file")
    try:
        archive = read_archive(file)
        examined = [examine_upload(recording) for recording in archive.recordings]
    except Unreadable as error:
        raise ProblemError("archive_unreadable", field="file", detail=str(error)) from error
    language = archive.language if archive.language in Language.values else ""
    return _create(check_name(archive.name), examined, consent=consent, language=language)


def export_voice_profile(*, profile: VoiceProfile) -> bytes:
    """Return the voice as a zip. Raises ProblemError."""
    _owner_of(profile)
    try:
        return write_archive(profile)
    except FileNotFoundError as error:
        raise ProblemError("recording_missing", detail=str(error)) from error


def _create(name: str, examined: Sequence[ExaminedRecording], *, consent: Consent, language: str) -> VoiceProfile:
    owner = consent.given_by
    profile = VoiceProfile(
        owner=owner,
        name=name,
        language=language or Language.CHINESE,
        is_language_guessed=not language,
        kind=Kind.MATCHED,
        consent=consent,
    )
    recordings = [_make_recording(profile, each, consent) for each in examined]
    with ExitStack() as stack:
        for recording, each in zip(recordings, examined, strict=True):
            stack.enter_context(_stored_or_removed(recording, each.flac))
        with transaction.atomic():
            _check_room(owner, sum(len(each.flac) for each in examined))
            consent.save(force_insert=True)
            profile.save(force_insert=True)
            for recording in recordings:
                recording.save(force_insert=True)
            leases.queue(profile.pk, JobKind.BUILD, now=timezone.now())
            delay_on_commit(tasks.extract_embedding, voice_profile_id=str(profile.pk))
    return profile


def add_recording(*, profile: VoiceProfile, audio: bytes, attestation: str, consent_text_sha256: str = "") -> Recording:
    """
    Add another recording of the same person, and rebuild the voice from all of them. Raises ProblemError.

    The consents of the other recordings do not cover this one.
    """
    owner = _owner_of(profile)
    check_not_disabled(profile)
    consent = declare_consent(user=owner, attestation=attestation, text_sha256=consent_text_sha256)
    if profile.recordings.count() >= MAX_RECORDINGS:
        raise ProblemError("too_many_recordings", field="audio")
    examined = examine_upload(audio)
    recording = _make_recording(profile, examined, consent)
    with _stored_or_removed(recording, examined.flac), transaction.atomic():
        _check_room(owner, len(examined.flac), profile=profile)
        consent.save(force_insert=True)
        recording.save(force_insert=True)
        rebuild(profile=profile)
    return recording


def remove_recording(*, recording: Recording) -> None:
    """Remove one of several recordings, and rebuild the voice from the others. Raises ProblemError."""
    profile = recording.profile
    with transaction.atomic():
        # The lock of the voice's row: two requests at once must not remove the last two.
        check_not_disabled(VoiceProfile.objects.select_for_update().get(pk=profile.pk))
        if profile.recordings.exclude(pk=recording.pk).count() == 0:
            raise ProblemError("last_recording")
        recording.delete()
        # The consent of the voice itself is deleted with the voice.
        Consent.objects.filter(pk=recording.consent_id, profile=None, recordings=None).delete()
        rebuild(profile=profile)
    delete_file(recording.audio.name)


def delete_recordings(*, ids: Collection[uuid.UUID]) -> int:
    """
    Delete recordings that were removed before, and are back with an old database. Return how many.

    Their voices are built again from the others, by a worker or with `enable`; one without others is as before it
    was built. Files are removed once it is committed.
    """
    recordings = list(Recording.objects.filter(pk__in=ids).select_related("profile").order_by("pk"))
    for recording in recordings:
        profile = recording.profile
        names = [recording.audio.name or ""]
        with transaction.atomic():
            leases.lock_profile(profile.pk)
            recording.delete()
            delete_unused_consents(ids=[recording.consent_id])
            jobs = VoiceJob.objects.filter(profile=profile)
            if not profile.recordings.exists():
                names += [profile.clip.name] if profile.clip.name else []
                VoiceProfile.objects.filter(pk=profile.pk).update(**_UNBUILT)
                jobs.update(**_CANCELLED)
            elif not leases.queue(profile.pk, JobKind.BUILD, now=timezone.now()):
                # Disabled: `enable` builds a voice whose build is not done.
                jobs.filter(kind=JobKind.BUILD).update(**_CANCELLED)
            transaction.on_commit(partial(remove_files, names), robust=True)
    return len(recordings)


def delete_previews(*, ids: Collection[uuid.UUID]) -> int:
    """Delete previews that were deleted before, and are back with an old database. Return how many."""
    previews_found = Preview.objects.filter(pk__in=ids)
    names = list(previews_found.values_list("audio", flat=True))
    previews_found.delete()
    transaction.on_commit(partial(remove_files, names), robust=True)
    return len(names)


def delete_unused_consents(*, ids: Collection[uuid.UUID]) -> int:
    """Delete consents of neither a voice nor a recording. Return how many. The consent of a voice goes with it."""
    return Consent.objects.filter(pk__in=ids, profile=None, recordings=None).delete()[0]


def rebuild(*, profile: VoiceProfile) -> None:
    """
    Build the voice again from its recordings; a build that runs is superseded. Raises ProblemError if it is disabled.

    Until it is built it sounds as before.
    """
    _owner_of(profile)
    with transaction.atomic():
        if not leases.queue(profile.pk, JobKind.BUILD, now=timezone.now()):
            raise ProblemError(_UNAVAILABLE.get(profile.availability, "disabled"))
        delay_on_commit(tasks.extract_embedding, voice_profile_id=str(profile.pk))


def retry(*, profile: VoiceProfile) -> None:
    """Build a voice again whose build failed. Raises ProblemError."""
    check_not_disabled(profile)
    if profile.state != State.FAILED:
        raise ProblemError("not_failed")
    rebuild(profile=profile)


def disable(*, profile: VoiceProfile) -> None:
    """Stop using the voice for replies, and cancel its jobs."""
    with transaction.atomic():
        voices = VoiceProfile.objects.filter(pk=profile.pk).exclude(availability=Availability.DELETING)
        voices.update(availability=Availability.DISABLED)
        leases.cancel(profile.pk, *JobKind)
        tell_voice_changed(profile.pk)


def enable(*, profile: VoiceProfile) -> None:
    """Take `disable` back. A voice whose build was not done is built now."""
    with transaction.atomic():
        disabled = VoiceProfile.objects.filter(pk=profile.pk, availability=Availability.DISABLED)
        if not disabled.update(availability=Availability.AVAILABLE):
            return
        unfinished = VoiceJob.objects.filter(profile=profile, kind=JobKind.BUILD).exclude(state=JobState.DONE)
        if unfinished.exists() and leases.queue(profile.pk, JobKind.BUILD, now=timezone.now()):
            delay_on_commit(tasks.extract_embedding, voice_profile_id=str(profile.pk))


def change_voice_profile(
    *,
    profile: VoiceProfile,
    user: User,
    name: str | None = None,
    language: str | None = None,
    is_shared: bool | None = None,
) -> VoiceProfile:
    """
    Rename a voice, set its language, share it with all users. Raises ProblemError.

    Only operators share, and only their own; any owner may stop sharing.
    """
    _owner_of(profile)
    fields: list[str] = []
    if name is not None:
        profile.name = check_name(name)
        fields.append("name")
    if language is not None:
        if not language:
            raise ProblemError("language_unknown", field="language")
        check_language(language)
        # A voice is matched among stock voices of its language.
        is_other = language != profile.language
        profile.language = language
        profile.is_language_guessed = False
        fields += ["language", "is_language_guessed"]
    else:
        is_other = False
    if is_shared is not None and is_shared != profile.is_shared:
        if is_shared and not may_share(user, profile):
            raise ProblemError("operators_only", field="is_shared")
        profile.is_shared = is_shared
        fields.append("is_shared")
    if fields:
        with transaction.atomic():
            profile.save(update_fields=fields)
            if "is_shared" in fields:
                tell_voice_changed(profile.pk)
            if is_other:
                rebuild(profile=profile)
                profile.refresh_from_db()
    return profile


def may_share(user: User, profile: VoiceProfile) -> bool:
    return profile.is_owned_by(user) and user.has_perm("voices.share_voiceprofile")


def unshare(*, profile: VoiceProfile) -> None:
    """Stop sharing a voice. Raises ProblemError."""
    _owner_of(profile)
    VoiceProfile.objects.filter(pk=profile.pk).update(is_shared=False)
    tell_voice_changed(profile.pk)


def delete_voice_profile(*, profile: VoiceProfile) -> None:
    """
    Delete a voice: recordings, embedding, clip, style, previews, consent. Turns keep their words.

    Raises ProblemError while the storage is unavailable: the voice is not used any more, and beat tries again.
    """
    _owner_of(profile)
    deletion.begin(profile)
    try:
        deletion.finish(profile)
    except OSError as error:
        logger.warning("deleting voice %s is not finished: %s", profile.pk, error)
        raise ProblemError("deletion_unfinished") from error


def choose_default(*, user: User, profile: VoiceProfile | None) -> VoicePreference:
    """Store the preferred voice of a user; None: the default one for the language of the reply."""
    preference, _ = VoicePreference.objects.update_or_create(user=user, defaults={"profile": profile})
    return preference


def choose_quality(*, user: User, quality: str) -> VoicePreference:
    if quality not in Quality.values:
        raise ProblemError("quality_unknown", field="quality")
    preference, _ = VoicePreference.objects.update_or_create(user=user, defaults={"quality": quality})
    return preference


def mark_used(*, voice_profile_id: uuid.UUID) -> None:
    VoiceProfile.objects.filter(pk=voice_profile_id).update(last_used_at=timezone.now())


def check_speakable(profile: VoiceProfile) -> None:
    """Raises ProblemError if the voice cannot be used now."""
    if not profile.is_speakable:
        raise ProblemError(_UNAVAILABLE.get(profile.availability, "not_ready"))


def check_not_disabled(profile: VoiceProfile) -> None:
    """Raises ProblemError if an operator has disabled the voice, or if it is being deleted."""
    if code := _UNAVAILABLE.get(profile.availability):
        raise ProblemError(code)


def preview(*, profile: VoiceProfile, user: User, text: str, quality: str = "") -> tuple[Preview, bool]:
    """
    Return a preview, and whether it was stored already. Without `quality`: the one that the user prefers.

    Raises ProblemError, and InferenceUnavailable, InferenceBusy or InferenceError.
    """
    check_speakable(profile)
    text = check_preview_text(text)
    quality = quality or read_preference(user=user).quality
    if quality not in Quality.values:
        raise ProblemError("quality_unknown", field="quality")
    return previews.get_or_synthesise(
        profile=profile, user=user, text=text, quality=quality, inference=inference_client.get_inference()
    )


def read_preference(*, user: User) -> VoicePreference:
    """
    Return the preference of a user, or the defaults.

    A voice that cannot be used now (no longer shared, disabled) is left out, but stays stored.
    """
    preference = VoicePreference.objects.filter(user=user).select_related("profile").first()
    if preference is None:
        return VoicePreference(user=user)
    if preference.profile_id and not VoiceProfile.objects.usable_by(user).filter(pk=preference.profile_id).exists():
        preference.profile = None
    return preference


def start_fitting(*, profile: VoiceProfile) -> None:
    """Have a worker search a style that is nearer than the nearest voice. Takes minutes. Raises ProblemError."""
    _owner_of(profile)
    check_not_disabled(profile)
    if profile.state is not State.READY:
        raise ProblemError("not_ready")
    if profile.kind != Kind.MATCHED:
        raise ProblemError("fitting_impossible")
    with transaction.atomic():
        leases.lock_profile(profile.pk)
        fit = VoiceJob.objects.filter(profile=profile, kind=JobKind.FIT)
        is_under_way = fit.filter(state__in=JobState.active()).exists()
        if not is_under_way and leases.queue(profile.pk, JobKind.FIT, now=timezone.now()):
            delay_on_commit(tasks.fit_style, voice_profile_id=str(profile.pk))


def cancel_fitting(*, profile: VoiceProfile) -> None:
    """Cancel the fit that waits or runs. The style of an earlier one stays."""
    leases.cancel(profile.pk, JobKind.FIT)


def declare_consent(*, user: User, attestation: str, text_sha256: str = "") -> Consent:
    """
    Return a consent with the wording that was shown. It is not saved yet.

    `text_sha256` says which wording; without it, that of the active language. Raises ProblemError.
    """
    check_consent(attestation)
    text, digest = find_consent(attestation, text_sha256)
    return Consent(given_by=user, attestation=attestation, text=text, text_sha256=digest)


def check_name(name: str) -> str:
    check_characters(name, field="name")
    name = clean_line(name)
    if not name:
        raise ProblemError("name_required", field="name")
    if len(name) > MAX_NAME_LENGTH:
        raise ProblemError("name_too_long", field="name")
    return name


def check_preview_text(text: str) -> str:
    """Return the sentence with single spaces. Raises ProblemError."""
    check_characters(text, field="text")
    text = " ".join(text.split())
    if not text:
        raise ProblemError("text_required", field="text")
    if len(text) > MAX_PREVIEW_TEXT:
        raise ProblemError("text_too_long", field="text")
    return text


def check_characters(text: str, *, field: str) -> None:
    """Raises ProblemError for NUL and lone surrogates, which JSON can hold and neither database nor engines take."""
    if "\0" in text or any("\ud800" <= each <= "\udfff" for each in text):
        raise ProblemError("invalid", field=field)


def check_consent(attestation: str) -> None:
    if not attestation:
        raise ProblemError("consent_required", field="consent_attestation")
    if attestation not in Attestation.values:
        raise ProblemError("consent_invalid", field="consent_attestation")


def check_language(language: str) -> None:
    if language and language not in Language.values:
        raise ProblemError("language_unknown", field="language")


def _owner_of(profile: VoiceProfile) -> User:
    if profile.owner is None:
        raise ProblemError("stock_voice")
    return profile.owner


def _make_recording(profile: VoiceProfile, examined: ExaminedRecording, consent: Consent) -> Recording:
    quality = examined.quality
    return Recording(
        profile=profile,
        consent=consent,
        size_bytes=len(examined.flac),
        duration_s=round(quality.duration_s, 3),
        speech_s=round(min(quality.speech_s, quality.duration_s), 3),
        snr_db=round(quality.snr_db, 1),
        clipped_share=quality.clipped_share,
        warnings=list(quality.warnings),
    )


@contextmanager
def _stored_or_removed(recording: Recording, flac: bytes) -> Iterator[None]:
    """Write the file outside of the transaction, and remove it if the row is not saved."""
    try:
        files.write(recording.audio, flac)
        yield
    except BaseException:
        if not _may_have_row(recording):
            with suppress(OSError):
                delete_file(recording.audio.name)
                files.delete_folder_if_empty(recording.profile)
        raise


def _may_have_row(recording: Recording) -> bool:
    """Whether the file is needed: what failed may be a hook after the commit."""
    try:
        return Recording.objects.filter(pk=recording.pk).exists()
    except DatabaseError:
        # `delete_orphans` decides later.
        return True


def _check_room(owner: User, more_bytes: int, *, profile: VoiceProfile | None = None) -> None:
    # Locks the owner's row: one upload at a time. SQLite locked the whole file with BEGIN IMMEDIATE.
    get_user_model().objects.select_for_update().get(pk=owner.pk)
    of_voice = Recording.objects.filter(profile=profile).aggregate(bytes=Sum("size_bytes"))["bytes"] or 0
    if of_voice + more_bytes > MAX_RECORDINGS_BYTES:
        raise ProblemError("voice_too_large", field="audio")
    own = VoiceProfile.objects.filter(owner=owner)
    kept = Recording.objects.filter(profile__owner=owner).aggregate(bytes=Sum("size_bytes"))["bytes"] or 0
    kept += own.aggregate(bytes=Sum(F("clip_bytes")))["bytes"] or 0
    if kept + more_bytes > settings.AVATAR_VOICE_QUOTA_MIB * 1024 * 1024:
        raise ProblemError("quota_exceeded", field="audio")
