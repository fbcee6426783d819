"""
Synthesises a reply again in high quality after the call, and replaces its audio (AVATAR_BEAUTIFUL_LATER).

Background work: live calls preempt it. Where high quality is not available, the audio stays as it is.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace

from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from avatar_site.lib.inference_client import ask
from conversations.encode import encode_audio, suffix_of
from conversations.models import Speaker, Turn
from inference import offline
from inference.interfaces import Inference, InferenceError
from inference.interfaces import Quality as EngineQuality
from voices.models import Quality
from voices.voice_spec import VoiceSpec, read_voice_spec

logger = logging.getLogger(__name__)

TIMEOUT_S = 300.0


def render(*, turn_id: uuid.UUID, inference: Inference) -> None:
    """Replace the audio of a turn, if its quality is fast and its voice exists."""
    turn = _find(turn_id)
    if turn is None:
        logger.info("turn %s is not to be synthesised again", turn_id)
        return
    sound = read_voice_spec(turn.voice_profile) if turn.voice_profile else VoiceSpec()
    options = replace(sound.as_options(), quality=EngineQuality.HIGH_QUALITY, is_background=True)
    try:
        spoken = ask(offline.speak(inference.tts, offline.cut_sentences(turn.text), options), timeout_s=TIMEOUT_S)
    except (InferenceError, TimeoutError) as error:
        logger.warning("turn %s stays as it is: %s", turn_id, error or "it took too long")
        return
    if spoken.quality is not EngineQuality.HIGH_QUALITY or not spoken.pcm:
        logger.info("turn %s stays as it is: high quality is not available", turn_id)
        return
    _replace(turn, spoken)


def _find(turn_id: uuid.UUID) -> Turn | None:
    turns = Turn.objects.filter(pk=turn_id, speaker=Speaker.AVATAR, quality=Quality.FAST).exclude(audio="")
    turn = turns.select_related("voice_profile", "conversation").first()
    # Another voice than it was spoken in would change the turn.
    return None if turn is None or turn.voice_was_deleted else turn


def _replace(turn: Turn, spoken: offline.Spoken) -> None:
    """Write the new file, change the row, then delete the old file; if the row has changed, delete the new one."""
    audio = encode_audio(
        spoken.pcm, spoken.sample_rate_hz, audio_format=settings.AVATAR_AUDIO_FORMAT, is_synthetic=True
    )
    old = turn.audio_name
    new = default_storage.save(f"{old.rpartition('.')[0]}.high_quality.{suffix_of(audio)}", ContentFile(audio))
    # The turn, the voice or the audio may have been deleted since.
    changed = Turn.objects.filter(
        pk=turn.pk, audio=old, quality=Quality.FAST, voice_profile_id=turn.voice_profile_id
    ).update(audio=new, audio_bytes=len(audio), quality=Quality.HIGH_QUALITY, audio_duration_ms=spoken.duration_ms)
    default_storage.delete(old if changed else new)
