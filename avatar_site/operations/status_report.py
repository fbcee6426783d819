"""What `manage.py serve --status` prints: the health of the site, asked once, without the web process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from django.conf import settings
from django.utils import timezone

from avatar_site import version
from avatar_site.operations.serving import describe_role
from avatar_site.operations.status import Snapshot, Usage, make_prober
from inference.client import InferenceClient
from inference.interfaces import Inference

GIB = 1024**3


def probe() -> Snapshot:
    """Ask the database, the inference process and the machine. Takes two seconds at most."""
    return asyncio.run(
        _probe(InferenceClient(settings.AVATAR_INFERENCE_ADDRESS, secret=settings.AVATAR_INFERENCE_SECRET))
    )


async def _probe(inference: Inference) -> Snapshot:
    prober = make_prober(inference)
    try:
        return await prober.probe()
    finally:
        await inference.close()


def describe(snapshot: Snapshot) -> Iterator[str]:
    """Yield the lines about a snapshot."""
    reasons = f" ({', '.join(snapshot.reasons)})" if snapshot.reasons else ""
    yield f"Health: {snapshot.health.value}{reasons}"
    yield f"Version {version.read_version()}, build {version.read_build()}, profile {settings.AVATAR_PROFILE}"
    if snapshot.inference.status is None:
        yield f"  inference: {snapshot.inference.reason}"
    else:
        yield from map(describe_role, snapshot.inference.status.roles)
    database, machine = snapshot.database, snapshot.machine
    if database.problem:
        yield f"Database: {database.problem}"
    else:
        yield f"Sessions: {database.active} of {settings.AVATAR_MAX_SESSIONS}, {database.waiting} waiting"
        taken_at = database.backed_up_at
        when = "none" if taken_at is None else f"{timezone.localtime(taken_at):%Y-%m-%d %H:%M}"
        yield f"Newest verified backup: {when}"
    if snapshot.vram is not None:
        yield f"VRAM: {_say_usage(snapshot.vram)}"
    if machine is not None:
        yield f"RAM: {_say_usage(machine.ram)}"
        yield f"Disk: {_say_usage(machine.disk)}"


def _say_usage(usage: Usage) -> str:
    return f"{usage.used / GIB:.1f} of {usage.total / GIB:.1f} GiB ({usage.percent:.0f} %)"
