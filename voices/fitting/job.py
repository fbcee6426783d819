"""Bringing a voice closer to its recordings, from its row to its row. The search itself is `fitting`."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
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
from voices.leases import ClaimLost, FittingClaim
from voices.models import FittingState, VoiceProfile

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from avatar_site.lib.inference_client import Report
    from voices.fitting.search import Fit

logger = logging.getLogger(__name__)


class OtherEncoder(InferenceError):
    """The voice was made with another encoder than the one that runs: it waits to be made anew. Hand it to a worker."""


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
    Look for a style for a voice, if it waits for one and no other voice is being fitted.

    It is kept only if it is nearer than what the voice has, and as intelligible. Cancelling takes effect within a step.
    Raises OtherEncoder.
    """
    claim = FittingClaim.take(voice_profile_id)
    if claim is None:
        logger.info("voice %s does not wait to be fitted, or not yet", voice_profile_id)
        return
    try:
        _fit(claim, inference)
    except ClaimLost:
        logger.info("fitting voice %s was cancelled", voice_profile_id)


def _fit(claim: FittingClaim, inference: Inference) -> None:
    profile = VoiceProfile.objects.get(pk=claim.profile_id)
    try:
        found = _search(claim, profile, inference)
    except OtherEncoder as error:
        claim.fail()
        if not leases.make_again(VoiceProfile.objects.filter(pk=profile.pk), now=timezone.now()):
            return
        logger.info("voice %s is made anew before it is fitted: the encoder is %s", profile.pk, error)
        raise
    except InferenceError:
        logger.exception("fitting voice %s failed", profile.pk)
        claim.fail()
        return
    except ClaimLost:
        raise
    except Exception:
        claim.fail()
        raise
    best_before = max(each for each in (profile.similarity, profile.fitting_similarity, -1.0) if each is not None)
    over = {
        "fitting_state": FittingState.DONE,
        "fitting_progress": 1.0,
        "fitting_claim": None,
        "fitting_claimed_at": None,
    }
    if found is None or not found.is_better or (profile.style and found.similarity <= best_before):
        claim.update(**over)
        return
    claim.update(**over, style=found.style, fitting_similarity=found.similarity, version=F("version") + 1)
    tell_voice_changed(profile.pk)
    for preview in profile.previews.exclude(voice_version=profile.version + 1):
        preview.delete()
        delete_or_leave(preview.audio.name)


def _search(claim: FittingClaim, profile: VoiceProfile, inference: Inference) -> Fit | None:
    target = tuple(float(value) for value in np.frombuffer(bytes(profile.embedding), "<f4"))

    def work(report: Report) -> Coroutine[None, None, Fit | None]:
        async def search_style() -> Fit | None:
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
                # Losing the claim cancels the task.
                is_cancelled=lambda: False,
            )

        return search_style()

    return run_with_heartbeat(
        work,
        on_report=lambda share: claim.update(fitting_progress=min(max(share, 0.0), 0.99)),
        on_wait=claim.update,
    )
