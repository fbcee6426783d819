"""What workers do for voices. Safe to deliver twice: each takes its work with one conditional UPDATE, or leaves it."""

from __future__ import annotations

import uuid

from celery import shared_task
from django.utils import timezone

from avatar_site.lib import inference_client
from voices import deletion, files, leases
from voices.build import job as build_job
from voices.build import renewal
from voices.fitting import job as fitting_job


@shared_task
def extract_embedding(*, voice_profile_id: str) -> None:
    """Make a voice from its recordings."""
    try:
        build_job.extract(voice_profile_id=uuid.UUID(voice_profile_id), inference=inference_client.get_inference())
    except build_job.TryAgain as later:
        extract_embedding.apply_async(kwargs={"voice_profile_id": voice_profile_id}, countdown=later.delay_s)


@shared_task
def fit_style(*, voice_profile_id: str) -> None:
    """Bring a voice closer to its recordings. Minutes of work that give way to everybody who talks."""
    try:
        fitting_job.fit(voice_profile_id=uuid.UUID(voice_profile_id), inference=inference_client.get_inference())
    except fitting_job.OtherEncoder:
        extract_embedding.delay(voice_profile_id=voice_profile_id)
    for next_id in leases.next_fittings(now=timezone.now()):
        fit_style.delay(voice_profile_id=str(next_id))


@shared_task
def requeue_lost_work() -> None:
    """Take work back from workers that have died."""
    to_make, to_fit = leases.requeue_lost(now=timezone.now())
    for voice_profile_id in to_make:
        extract_embedding.delay(voice_profile_id=str(voice_profile_id))
    for voice_profile_id in to_fit:
        fit_style.delay(voice_profile_id=str(voice_profile_id))


@shared_task
def delete_orphans() -> None:
    """Delete files that belong to no voice any more."""
    files.delete_orphans(now=timezone.now())


@shared_task
def finish_deletions() -> None:
    """Delete voices whose files could not be reached when their owners deleted them."""
    deletion.finish_all()


@shared_task
def renew() -> None:
    """Make voices anew that were made for other engines than those that run."""
    for voice_profile_id in renewal.take_outdated(inference=inference_client.get_inference(), now=timezone.now()):
        extract_embedding.delay(voice_profile_id=str(voice_profile_id))
