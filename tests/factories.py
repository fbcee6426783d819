"""Rows as tests need them: one function a model, everything about it optional."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

import numpy as np
from django.contrib.auth.models import User
from django.utils import timezone

from conversations.models import Conversation, Turn
from conversations.services import append_turn
from inference.audio.encode import encode_flac
from inference.audio.pcm import pcm_from_float
from realtime.models import LiveCall
from tests import sounds
from voices.models import VoiceJob, VoiceProfile
from voices.services import create_voice_profile as create_from_upload
from voices.services import declare_consent

_numbers = itertools.count(1)

PASSWORD = "correct horse battery staple"


def create_user(username: str | None = None, **fields: Any) -> User:
    return User.objects.create_user(username or f"user{next(_numbers)}", password=PASSWORD, **fields)


def create_voice_profile(owner: User | None = None, **fields: Any) -> VoiceProfile:
    """A voice that is built. With an owner it has a consent and a build job; recordings it has none."""
    defaults: dict[str, Any] = {
        "name": "My voice",
        "language": "zh",
        "gender": "female",
        "engine_voice": "zf_xiaoxiao",
        "version": 1,
        "kind": "matched" if owner else "stock",
    }
    if owner and "consent" not in fields:
        defaults["consent"] = declare_consent(user=owner, attestation="own_voice")
        defaults["consent"].save()
    profile = VoiceProfile.objects.create(owner=owner, **(defaults | fields))
    if owner:
        set_job(profile, "build", state="done", progress=1.0, step="matching")
    return profile


def set_job(profile: VoiceProfile, kind: str, **fields: Any) -> VoiceJob:
    """Write the job of this kind, whatever it was. A running one is leased."""
    if fields.get("state") == "running":
        fields = {"token": uuid.uuid4(), "claimed_at": timezone.now()} | fields
    elif "state" in fields:
        fields = {"token": None} | fields
    create = {"step": "queued" if kind == "build" else ""} | fields
    job, _ = VoiceJob.objects.update_or_create(profile=profile, kind=kind, defaults=fields, create_defaults=create)
    return job


def read_fit_state(profile: VoiceProfile) -> str:
    job = VoiceJob.objects.filter(profile=profile, kind="fit").first()
    return job.state if job else "none"


def create_conversation(owner: User | None = None, **fields: Any) -> Conversation:
    return Conversation.objects.create(owner=owner or create_user(), **fields)


def create_turn(conversation: Conversation | None = None, **fields: Any) -> Turn:
    conversation = conversation or create_conversation()
    defaults = {
        "turn_id": uuid.uuid4(),
        "speaker": "user",
        "text": "你好。",
        "language": "zh",
        "audio": None,
        "audio_duration_ms": 0,
        "was_interrupted": False,
        "voice_profile_id": None,
        "latency": None,
    }
    return append_turn(conversation_id=conversation.pk, **(defaults | fields))


def make_flac(*, duration_ms: int = 100, sample_rate_hz: int = 16_000) -> bytes:
    """A quiet tone."""
    t = np.arange(sample_rate_hz * duration_ms // 1000) / sample_rate_hz
    return encode_flac(pcm_from_float(0.1 * np.sin(2 * np.pi * 440 * t)), sample_rate_hz)


def upload_voice(owner: User, *, name: str = "My voice", seconds: float = 6.0, language: str = "zh") -> VoiceProfile:
    """A voice as people make it: pending, with a recording, a consent and a file."""
    return create_from_upload(
        owner=owner,
        name=name,
        audio=sounds.encode(sounds.make_speech(seconds), "wav"),
        attestation="own_voice",
        language=language,
    )


def create_live_call(user: User, **fields: Any) -> LiveCall:
    """A call that began just now, in a process of another machine."""
    now = timezone.now()
    defaults = {"session_id": uuid.uuid4(), "process": "elsewhere:1", "began_at": now, "last_seen_at": now}
    return LiveCall.objects.create(user=user, **(defaults | fields))
