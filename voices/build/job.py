"""The job that builds a voice, from its rows and files to its rows and files. What is in between is `steps`."""

from __future__ import annotations

import logging
import uuid
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from django.core.cache import cache
from django.db import transaction
from django.db.models import F

from avatar_site.lib.inference_client import run_with_heartbeat
from avatar_site.lib.live_calls import tell_voice_changed
from avatar_site.lib.problems import ProblemError
from avatar_site.lib.stored_files import delete_file, delete_or_leave
from inference.audio.decode import decode
from inference.audio.encode import encode_flac
from inference.audio.pcm import pcm_from_float
from inference.interfaces import (
    Inference,
    InferenceBusy,
    InferenceError,
    InferenceStatus,
    InferenceUnavailable,
    Role,
)
from inference.offline import EngineSilent
from voices import files, leases
from voices.build import steps
from voices.build.steps import BuiltVoice, Heard, NoSpeech, Progress, Source, StockMeasured
from voices.leases import Lease, LeaseLost
from voices.models import JobKind, Kind, Recording, Step, VoiceJob, VoiceProfile
from voices.recordings.quality import MAX_DURATION_S

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from avatar_site.lib.inference_client import Report

logger = logging.getLogger(__name__)

#: Back-off while engines or the storage are unavailable: so much longer with each attempt.
TRY_AGAIN_S = 10
MAX_TRIES = 6


class StorageAway(Exception):
    """The storage of files is unavailable."""


class TryAgain(Exception):
    """Engines or files were unavailable. The job is queued again; hand it to a worker in `delay_s`."""

    def __init__(self, delay_s: int) -> None:
        super().__init__(f"in {delay_s} s")
        self.delay_s = delay_s


def build(*, voice_profile_id: uuid.UUID, inference: Inference) -> None:
    """
    Build a voice, if it is queued for that.

    A failure is written to the job as a code for the owner. Raises TryAgain.
    """
    leases.do_job(voice_profile_id, JobKind.BUILD, partial(_build, inference=inference))


def _build(lease: Lease, *, inference: Inference) -> None:
    profile = VoiceProfile.objects.get(pk=lease.profile_id)
    try:
        recordings = list(profile.recordings.oldest_first())
        built = _run_steps(lease, profile, [_read(recording) for recording in recordings], inference)
        _store(lease, profile, recordings, built)
    except NoSpeech:
        lease.fail("no_speech")
    except ProblemError as problem:
        logger.error("building voice %s failed: %s", profile.pk, problem)
        lease.fail(problem.code)
    except FileNotFoundError:
        logger.exception("a recording of voice %s is gone", profile.pk)
        lease.fail("recording_missing")
    except InferenceBusy as error:
        _try_again(lease, "inference_busy", error)
    except EngineSilent:
        # Asked again at once, an engine that hangs would hold this worker for as long again.
        logger.exception("building voice %s: an engine hangs", profile.pk)
        lease.fail("inference_unavailable")
    except InferenceUnavailable as error:
        _try_again(lease, "inference_unavailable", error)
    except StorageAway as error:
        logger.warning("the storage of files, for voice %s: %s", profile.pk, error)
        _try_again(lease, "storage_unavailable", error)
    except InferenceError:
        logger.exception("building voice %s failed", profile.pk)
        lease.fail("inference_failed")
    except (LeaseLost, TryAgain):
        raise
    except Exception:
        # The owner is told; the log says what it was.
        lease.fail("internal")
        raise


def _try_again(lease: Lease, code: str, error: Exception) -> None:
    """Queue the job again for later, unless it was attempted often enough."""
    if lease.attempts >= MAX_TRIES:
        lease.fail(code)
        return
    lease.give_back()
    raise TryAgain(TRY_AGAIN_S * lease.attempts) from error


@contextmanager
def _asking_storage() -> Iterator[None]:
    """Tell OSErrors of the storage from those of engines. A missing file stays FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageAway(str(error)) from error


def _read(recording: Recording) -> Source:
    with _asking_storage(), recording.audio.open("rb") as file:
        data = file.read()
    decoded = decode(data, max_s=MAX_DURATION_S)
    return Source(decoded.samples, decoded.sample_rate_hz, recording.snr_db, recording.clipped_share)


def _run_steps(lease: Lease, profile: VoiceProfile, sources: list[Source], inference: Inference) -> BuiltVoice:
    language = "" if profile.is_language_guessed else profile.language
    stock_key: list[str] = []

    def work(report: Report) -> Coroutine[None, None, BuiltVoice]:
        async def run() -> BuiltVoice:
            status = await inference.status()
            stock_key.append(compute_stock_key(status))
            stock = await _read_stock(stock_key[0])
            return await steps.build_voice(sources, inference=inference, language=language, stock=stock, report=report)

        return run()

    def on_report(report: Progress | StockMeasured) -> None:
        match report:
            case Progress(step=step, share=share):
                lease.renew(step=Step(step), progress=min(max(share, 0.0), 0.99))
            case StockMeasured(stock=stock, encoder=encoder):
                voices = {key: list(values) for key, values in stock.items()}
                cache.set(stock_key[0], {"encoder": encoder, "voices": voices}, None)

    return run_with_heartbeat(work, on_report=on_report, on_wait=lease.renew)


def compute_stock_key(status: InferenceStatus) -> str:
    """The cache key of the stock voices' embeddings, which are those of one pair of engines."""
    names = {role.role: f"{role.engine}-{role.model}" for role in status.roles}
    name = f"{names.get(Role.TTS, '')}-{names.get(Role.ENCODER, '')}"
    return "measured-stock:" + "".join(each if each.isalnum() or each in "-._" else "_" for each in name)


async def _read_stock(key: str) -> StockMeasured | None:
    kept = await cache.aget(key)
    if not kept:
        return None
    return StockMeasured({name: tuple(values) for name, values in kept["voices"].items()}, kept["encoder"])


def _store(lease: Lease, profile: VoiceProfile, recordings: list[Recording], built: BuiltVoice) -> None:
    """Write the voice, its file first. If the lease was lost, the file is removed again."""
    old_clip = profile.clip.name
    flac = encode_flac(pcm_from_float(built.clip), steps.CLIP_RATE_HZ)
    with _asking_storage():
        files.write(profile.clip, flac)
    try:
        with transaction.atomic():
            lease.finish(
                version=F("version") + 1,
                kind=Kind.CLONED if built.is_cloned else Kind.MATCHED,
                language=built.language,
                is_language_guessed=False,
                encoder=built.embedding.encoder,
                embedding=np.array(built.embedding.values, "<f4").tobytes(),
                clip=profile.clip.name,
                clip_bytes=len(flac),
                clip_transcript=built.clip_transcript,
                engine_voice=built.engine_voice,
                similarity=built.similarity,
                # A style was fitted to another embedding.
                style=b"",
                fitting_similarity=None,
            )
            VoiceJob.objects.filter(profile=profile, kind=JobKind.FIT).delete()
            for recording, heard in zip(recordings, built.heard, strict=True):
                _store_heard(recording, heard, built.language)
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


def _store_heard(recording: Recording, heard: Heard, language: str) -> None:
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
