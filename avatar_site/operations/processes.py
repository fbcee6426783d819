"""The processes of AVATAR: their commands, order of stopping, and resident memory."""

from __future__ import annotations

import sys

import psutil

from avatar_site.operations.supervisor import ChildSpec

NAMES = ("inference", "web", "worker", "beat")


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
        "worker": ChildSpec(
            "worker",
            (
                *(*celery, "worker", "--pool", "threads", "--concurrency", "2", "--loglevel", "INFO"),
                *("--without-gossip", "--without-mingle", "--without-heartbeat"),
            ),
        ),
        "beat": ChildSpec(
            "beat", (*python, "celery", "--app", "avatar_site.beat", "beat", "--loglevel", "INFO", "--pidfile=")
        ),
    }
    return [commands[name] for name in names]


def measure_memory_bytes(pid: int, *, with_children: bool) -> int | None:
    """Return the resident memory of a process, optionally with its children; None if it is gone."""
    try:
        process = psutil.Process(pid)
        family = (process, *process.children(recursive=True)) if with_children else (process,)
        return sum(each.memory_info().rss for each in family)
    except psutil.NoSuchProcess:
        return None
