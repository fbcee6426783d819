"""Previews: sentences of a user's choice, synthesised in a voice and stored."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from django.db import IntegrityError, transaction

from avatar_site.lib.inference_client import ask
from avatar_site.lib.stored_files import delete_file, delete_or_leave
from avatar_site.lib.synthetic_label import make_wav
from inference import offline
from inference.interfaces import Inference, InferenceBusy, InferenceError
from inference.interfaces import Quality as EngineQuality
from voices import files
from voices.models import Preview, VoiceProfile
from voices.voice_spec import read_voice_spec

if TYPE_CHECKING:
    from django.contrib.auth.models import User

#: Per user and voice; the oldest are deleted.
MAX_KEPT = 20
TIMEOUT_S = 60.0


def get_or_synthesise(
    *, profile: VoiceProfile, user: User, text: str, quality: str, inference: Inference
) -> tuple[Preview, bool]:
    """
    Return the preview, and whether it was stored already.

    One that was degraded because memory was short is synthesised again: there may be enough now.

    Raises what engines raise, InferenceError also when there is nothing to say in the text; ProblemError when the disk
    is full.
    """
    wanted = {
        "profile": profile,
        "requested_by": user,
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "voice_version": profile.version,
        "quality": quality,
    }
    kept = Preview.objects.filter(**wanted).first()
    if kept and (kept.made_with == quality or quality not in profile.qualities):
        return kept, True
    options = replace(read_voice_spec(profile).as_options(), quality=EngineQuality(quality), is_background=True)
    try:
        spoken = ask(offline.speak(inference.tts, offline.cut_sentences(text), options), timeout_s=TIMEOUT_S)
    except TimeoutError:
        raise InferenceBusy(f"not spoken within {TIMEOUT_S:g} s") from None
    if not spoken.pcm:
        raise InferenceError("nothing in the text can be spoken")
    wav = make_wav(spoken.pcm, spoken.sample_rate_hz)
    preview = Preview(**wanted, made_with=spoken.quality.value, duration_ms=spoken.duration_ms)
    files.write(preview.audio, wav)
    try:
        with transaction.atomic():
            if kept:
                kept.delete()
            preview.save(force_insert=True)
    except IntegrityError:
        delete_file(preview.audio.name)
        # Requested twice at once, or the voice has been deleted since.
        if others := Preview.objects.filter(**wanted).first():
            return others, True
        files.delete_folder_if_gone(profile)
        raise
    if kept:
        delete_or_leave(kept.audio.name)
    _make_room(profile, user)
    return preview, False


def _make_room(profile: VoiceProfile, user: User) -> None:
    kept = Preview.objects.filter(profile=profile, requested_by=user).order_by("-created_at", "pk")
    for old in kept[MAX_KEPT:]:
        old.delete()
        delete_or_leave(old.audio.name)
