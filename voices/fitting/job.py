"""The job that fits a style to a voice, from its row to its row. The search itself is `search`."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from django.conf import settings
from django.db.models import F
from django.utils import timezone

from avatar_site.lib.inference_client import run_with_heartbeat
from avatar_site.lib.live_calls import tell_voice_changed
from avatar_site.lib.stored_files import delete_or_leave
from inference.interfaces import (
    MICROPHONE_SAMPLE_RATE_HZ,
    Inference,
    InferenceError,
    SpeakerEmbedding,
    SpeakerEncoder,
)
from voices import leases
from voices.fitting import search
from voices.leases import Lease, LeaseLost
from voices.models import JobKind, VoiceProfile

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from avatar_site.lib.inference_client import Report
    from voices.fitting.search import Fit

logger = logging.getLogger(__name__)


class OtherEncoder(InferenceError):
    """The voice was built with another encoder than the one that runs. It is queued to be rebuilt: tell a worker."""


@dataclass(frozen=True, slots=True)
class ComparableEncoder:
    """An encoder whose embeddings can be compared with those of the encoder of that `name`. Raises OtherEncoder."""

    encoder: SpeakerEncoder
    name: str

    async def embed(self, pcm: bytes, *, sample_rate_hz: int = MICROPHONE_SAMPLE_RATE_HZ) -> SpeakerEmbedding:
        embedding = await self.encoder.embed(pcm, sample_rate_hz=sample_rate_hz)
        if embedding.encoder != self.name:
            raise OtherEncoder(f"{embedding.encoder!r}, not {self.name!r}")
        return embedding


def fit(*, voice_profile_id: uuid.UUID, inference: Inference) -> None:
    """
    Search a style for a voice, if it is queued for that and no other voice is being fitted.

    The style is stored only if it is nearer than what the voice has, and as intelligible. Cancelling takes effect
    within a step. Raises OtherEncoder.
    """
    leases.do_job(voice_profile_id, JobKind.FIT, partial(_fit, inference=inference))


def _fit(lease: Lease, *, inference: Inference) -> None:
    profile = VoiceProfile.objects.get(pk=lease.profile_id)
    try:
        found = _search(lease, profile, inference)
    except OtherEncoder as error:
        lease.fail("other_encoder")
        if not leases.queue(profile.pk, JobKind.BUILD, now=timezone.now()):
            return
        logger.info("voice %s is rebuilt before it is fitted: the encoder is %s", profile.pk, error)
        raise
    except InferenceError:
        logger.exception("fitting voice %s failed", profile.pk)
        lease.fail("inference_failed")
        return
    except LeaseLost:
        raise
    except Exception:
        lease.fail("internal")
        raise
    best_before = max(each for each in (profile.similarity, profile.fitting_similarity, -1.0) if each is not None)
    if not found.is_better or (profile.style and found.similarity <= best_before):
        lease.finish()
        return
    lease.finish(style=found.style, fitting_similarity=found.similarity, version=F("version") + 1)
    tell_voice_changed(profile.pk)
    for preview in profile.previews.exclude(voice_version=profile.version + 1):
        preview.delete()
        delete_or_leave(preview.audio.name)


def _search(lease: Lease, profile: VoiceProfile, inference: Inference) -> Fit:
    target = tuple(float(value) for value in np.frombuffer(bytes(profile.embedding), "<f4"))

    def work(report: Report) -> Coroutine[None, None, Fit]:
        async def search_style() -> Fit:
            if not await inference.tts.list_styles():
                raise InferenceError("the engine has no styles to search among")
            return await search.fit_style(
                tts=inference.tts,
                encoder=ComparableEncoder(inference.encoder, profile.encoder),
                stt=inference.stt,
                target=target,
                voice=profile.engine_voice,
                language=profile.language,
                steps=settings.AVATAR_VOICE_FITTING_STEPS,
                on_progress=lambda done, of, best: report(done / of),
            )

        return search_style()

    return run_with_heartbeat(
        work,
        on_report=lambda share: lease.renew(progress=min(max(share, 0.0), 0.99)),
        on_wait=lease.renew,
    )
