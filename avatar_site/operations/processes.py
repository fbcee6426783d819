"""The processes of AVATAR: their commands, order of stopping, and resident memory."""

from __future__ import annotations

import sys

import psutil

from avatar_site.operations import queues
from avatar_site.operations.supervisor import ChildSpec

NAMES = ("inference", "web", "worker", "maintenance", "beat")


def build_specs(*, names: tuple[str, ...], host: str, port: int, is_behind_proxy: bool) -> list[ChildSpec]:
    """Return the specs of the named processes. All other settings are in their environment."""
    python = (sys.executable, "-m")
    celery = (*python, "celery", "--app", "avatar_site.celery")
    commands: dict[str, ChildSpec] = {
        # It lets running requests finish, and is stopped last: a draining call still synthesises its sentence here.
        "inference": ChildSpec("inference", (*python, "inference"), stop_timeout_s=15, stops_after=("web", "worker")),
        "web": ChildSpec(
            "web",
            (
                *(*python, "avatar_site.web", "--bind", host, "--port", str(port), "--no-server-name"),
                *(("--proxy-headers",) if is_behind_proxy else ()),
                "avatar_site.asgi:application",
            ),
            # It drains: sentences end, turns are saved (`avatar_site.web.server.DRAIN_S`).
            stop_timeout_s=25,
        ),
        # Threads, not processes: tasks only wait for the inference process, and none outlives a killed worker.
        "worker": ChildSpec("worker", (*celery, *make_worker_arguments(queues.DEFAULT, threads=2))),
        # Neither queue waits for the other: a fit takes minutes, a backup may take an hour. One thread for a backup or
        # verification, one for the shipping of tombstones, which may wait for a bucket, one for alerts each minute, one
        # for the rest.
        "maintenance": ChildSpec("maintenance", (*celery, *make_worker_arguments(queues.MAINTENANCE, threads=4))),
        "beat": ChildSpec(
            "beat", (*python, "celery", "--app", "avatar_site.beat", "beat", "--loglevel", "INFO", "--pidfile=")
        ),
    }
    return [commands[name] for name in names]


def make_worker_arguments(queue: str, *, threads: int) -> tuple[str, ...]:
    """
    Return what follows `celery --app avatar_site.celery` for the worker of one queue.

    Threads, so that a short task passes a long one: a backup that takes an hour keeps neither tombstones from being
    shipped nor deleted words from being erased. Tasks that must not run at once hold a lock; see `tasks.py`.
    """
    return (
        *("worker", "--queues", queue, "--hostname", f"{queue}@%h", "--pool", "threads", "--concurrency", str(threads)),
        *("--loglevel", "INFO", "--without-gossip", "--without-mingle", "--without-heartbeat"),
    )


def measure_memory_bytes(pid: int, *, with_children: bool) -> int | None:
    """Return the resident memory of a process, optionally with its children; None if it is gone."""
    try:
        process = psutil.Process(pid)
        family = (process, *process.children(recursive=True)) if with_children else (process,)
        return sum(each.memory_info().rss for each in family)
    except psutil.NoSuchProcess:
        return None
