"""The making of a voice, from its rows and files to its rows and files. What is in between is `making`."""

from __future__ import annotations

import logging
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import numpy as np
from django.core.cache import cache
from django.db import transaction
from django.db.models import F

from avatar_site.lib.inference_client import run_with_heartbeat
from avatar_site.lib.live_calls import tell_voice_changed
from avatar_site.lib.problems import ProblemError
from avatar_site.lib.stored_files import delete_file, delete_or_leave
from inference.interfaces import (
    Inference,
    InferenceBusy,
    InferenceError,
    InferenceStatus,
    InferenceUnavailable,
    Role,
)
from inference.offline import EngineSilent
from voices import files
from voices.build import steps
from voices.build.steps import Heard, Made, NoSpeech, Progress, Source, StockMeasured
from voices.leases import ClaimLost, ExtractionClaim
from voices.models import FittingState, Kind, Recording, State, Step, VoiceProfile
from voices.recordings import decoding

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from avatar_site.lib.inference_client import Report

logger = logging.getLogger(__name__)

#: Engines that are away or busy are asked again after so long, more each time.
TRY_AGAIN_S = 10
MAX_TRIES = 6


class StorageAway(Exception):
    """The storage of files cannot be had now."""


class TryAgain(Exception):
    """Engines or files could not be had. The voice waits to be made; hand it to a worker again in `delay_s`."""

    def __init__(self, delay_s: int) -> None:
        super().__init__(f"in {delay_s} s")
        self.delay_s = delay_s


def extract(*, voice_profile_id: uuid.UUID, inference: Inference) -> None:
    """
    Make a voice, if it waits to be made.

    Its failure is written to the row as a code for its owner. Raises TryAgain.
    """
    claim = ExtractionClaim.take(voice_profile_id)
    if claim is None:
        logger.info("voice %s does not wait to be made", voice_profile_id)
        return
    try:
        _extract(claim, inference)
    except ClaimLost:
        logger.info("voice %s is not wanted any more, or by somebody else", voice_profile_id)


def _extract(claim: ExtractionClaim, inference: Inference) -> None:
    profile = VoiceProfile.objects.get(pk=claim.profile_id)
    try:
        recordings = list(profile.recordings.oldest_first())
        made = _make(claim, profile, [_read(recording) for recording in recordings], inference)
        _keep(claim, profile, recordings, made)
    except NoSpeech:
        claim.fail("no_speech")
    except ProblemError as problem:
        logger.error("making voice %s failed: %s", profile.pk, problem)
        claim.fail(problem.code)
    except FileNotFoundError:
        logger.exception("a recording of voice %s is gone", profile.pk)
        claim.fail("recording_missing")
    except InferenceBusy as error:
        _try_again(claim, profile, "inference_busy", error)
    except EngineSilent:
        # Asked again at once, an engine that hangs would hold this worker for as long again.
        logger.exception("making voice %s: an engine hangs", profile.pk)
        claim.fail("inference_unavailable")
    except InferenceUnavailable as error:
        _try_again(claim, profile, "inference_unavailable", error)
    except StorageAway as error:
        logger.warning("the storage of files, for voice %s: %s", profile.pk, error)
        _try_again(claim, profile, "storage_unavailable", error)
    except InferenceError:
        logger.exception("making voice %s failed", profile.pk)
        claim.fail("inference_failed")
    except (ClaimLost, TryAgain):
        raise
    except Exception:
        # Whatever it is, its owner is told; the operator finds it in the log.
        claim.fail("internal")
        raise


def _try_again(claim: ExtractionClaim, profile: VoiceProfile, code: str, error: Exception) -> None:
    """Give the work back, to be taken again later, unless it was tried often enough."""
    if profile.attempts >= MAX_TRIES:
        claim.fail(code)
        return
    claim.give_back()
    raise TryAgain(TRY_AGAIN_S * profile.attempts) from error


@contextmanager
def _asking_storage() -> Iterator[None]:
    """Tell what the storage raises from the OSErrors of engines. A file that is gone stays FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageAway(str(error)) from error


def _read(recording: Recording) -> Source:
    with _asking_storage(), recording.audio.open("rb") as file:
        data = file.read()
    samples, sample_rate_hz = decoding.decode_flac(data)
    return Source(samples, sample_rate_hz, recording.snr_db, recording.clipped_share)


def _make(claim: ExtractionClaim, profile: VoiceProfile, sources: list[Source], inference: Inference) -> Made:
    language = "" if profile.is_language_guessed else profile.language
    stock_key: list[str] = []

    def work(report: Report) -> Coroutine[None, None, Made]:
        async def make() -> Made:
            status = await inference.status()
            stock_key.append(key_of_stock(status))
            stock = await _read_stock(stock_key[0])
            return await steps.make_voice(sources, inference=inference, language=language, stock=stock, report=report)

        return make()

    def on_report(report: Progress | StockMeasured) -> None:
        match report:
            case Progress(step=step, share=share):
                claim.update(step=Step(step), progress=min(max(share, 0.0), 0.99))
            case StockMeasured(stock=stock, encoder=encoder):
                voices = {key: list(values) for key, values in stock.items()}
                cache.set(stock_key[0], {"encoder": encoder, "voices": voices}, None)

    return run_with_heartbeat(work, on_report=on_report, on_wait=claim.update)


def key_of_stock(status: InferenceStatus) -> str:
    """The name under which the embeddings of the engine's own voices are kept: other engines, other embeddings."""
    names = {role.role: f"{role.engine}-{role.model}" for role in status.roles}
    name = f"{names.get(Role.TTS, '')}-{names.get(Role.ENCODER, '')}"
    return "measured-stock:" + "".join(each if each.isalnum() or each in "-._" else "_" for each in name)


async def _read_stock(key: str) -> StockMeasured | None:
    kept = await cache.aget(key)
    if not kept:
        return None
    return StockMeasured({name: tuple(values) for name, values in kept["voices"].items()}, kept["encoder"])


def _keep(claim: ExtractionClaim, profile: VoiceProfile, recordings: list[Recording], made: Made) -> None:
    """Write the voice. Files first; a claim lost meanwhile takes the file back."""
    old_clip = profile.clip.name
    flac = decoding.encode_flac(made.clip, steps.CLIP_RATE_HZ)
    with _asking_storage():
        files.write(profile.clip, flac)
    try:
        with transaction.atomic():
            claim.update(
                state=State.READY,
                step=Step.MATCHING,
                progress=1.0,
                claim=None,
                claimed_at=None,
                is_outdated=False,
                version=F("version") + 1,
                kind=Kind.CLONED if made.is_cloned else Kind.MATCHED,
                language=made.language,
                is_language_guessed=False,
                encoder=made.embedding.encoder,
                embedding=np.array(made.embedding.values, "<f4").tobytes(),
                clip=profile.clip.name,
                clip_bytes=len(flac),
                clip_transcript=made.clip_transcript,
                engine_voice=made.engine_voice,
                similarity=made.similarity,
                # A style was fitted to another embedding.
                style=b"",
                fitting_state=FittingState.NONE,
                fitting_progress=0.0,
                fitting_similarity=None,
                fitting_claim=None,
                fitting_claimed_at=None,
            )
            for recording, heard in zip(recordings, made.heard, strict=True):
                _keep_heard(recording, heard, made.language)
            tell_voice_changed(profile.pk)
    except BaseException:
        with suppress(OSError):
            delete_file(profile.clip.name)
            files.delete_folder_if_gone(profile)
        raise
    delete_or_leave(old_clip)
    for preview in profile.previews.exclude(voice_version=profile.version + 1):
        preview.delete()
        delete_or_leave(preview.audio.name)


def _keep_heard(recording: Recording, heard: Heard, language: str) -> None:
    found = {
        "several_speakers": heard.speaker_count > 1,
        "no_transcript": not heard.transcript,
        "language_differs": bool(heard.language) and heard.language != language,
    }
    before = [code for code in recording.warnings if code not in found]
    Recording.objects.filter(pk=recording.pk).update(
        transcript=heard.transcript,
        speaker_count=heard.speaker_count,
        warnings=before + [code for code, applies in found.items() if applies],
    )
