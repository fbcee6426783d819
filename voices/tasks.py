"""Celery tasks of voices. Safe to deliver twice: a job is claimed with one conditional UPDATE, or left alone."""

from __future__ import annotations

import logging
import uuid

from celery import shared_task
from django.utils import timezone

from avatar_site.lib import inference_client
from voices import deletion, leases
from voices.build import job as build_job
from voices.build import renewal
from voices.fitting import job as fitting_job

logger = logging.getLogger(__name__)


@shared_task
def extract_embedding(*, voice_profile_id: str) -> None:
    """Build a voice from its recordings."""
    try:
        build_job.build(voice_profile_id=uuid.UUID(voice_profile_id), inference=inference_client.get_inference())
    except build_job.TryAgain as later:
        extract_embedding.apply_async(kwargs={"voice_profile_id": voice_profile_id}, countdown=later.delay_s)


@shared_task
def fit_style(*, voice_profile_id: str) -> None:
    """Fit a style to a voice: minutes of work that live calls preempt."""
    try:
        fitting_job.fit(voice_profile_id=uuid.UUID(voice_profile_id), inference=inference_client.get_inference())
    except fitting_job.OtherEncoder:
        extract_embedding.delay(voice_profile_id=voice_profile_id)
    for next_id in leases.find_next_fits():
        fit_style.delay(voice_profile_id=str(next_id))


@shared_task
def requeue_lost_work() -> None:
    """Sweep leases without a heartbeat, and hand out jobs that no worker has claimed."""
    to_build, to_fit = leases.sweep(now=timezone.now())
    for voice_profile_id in to_build:
        extract_embedding.delay(voice_profile_id=str(voice_profile_id))
    for voice_profile_id in to_fit:
        fit_style.delay(voice_profile_id=str(voice_profile_id))


@shared_task
def finish_deletions() -> None:
    """Delete voices whose files could not be reached when their owners deleted them."""
    deletion.finish_all()


@shared_task
def renew() -> None:
    """Rebuild voices that were built for other engines than those that run."""
    for voice_profile_id in renewal.queue_outdated(inference=inference_client.get_inference(), now=timezone.now()):
        extract_embedding.delay(voice_profile_id=str(voice_profile_id))
