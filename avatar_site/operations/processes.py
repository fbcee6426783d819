"""Which processes AVATAR is made of, and how much memory they hold."""

from __future__ import annotations

import sys

import psutil

from avatar_site.operations.supervisor import ChildSpec

NAMES = ("inference", "web", "worker", "beat")


def build_specs(*, names: tuple[str, ...], host: str, port: int, is_behind_proxy: bool) -> list[ChildSpec]:
    """The processes to keep, of `names`. Everything else they need to know is in their environment."""
    python = (sys.executable, "-m")
    celery = (*python, "celery", "--app", "avatar_site.celery")
    commands: dict[str, ChildSpec] = {
        # The inference process lets calls under way finish; a sentence that web still ends is spoken there.
        "inference": ChildSpec("inference", (*python, "inference"), stop_timeout_s=15, stops_after=("web", "worker")),
        "web": ChildSpec(
            "web",
            (
                *(*python, "avatar_site.web", "--bind", host, "--port", str(port), "--no-server-name"),
                *(("--proxy-headers",) if is_behind_proxy else ()),
                "avatar_site.asgi:application",
            ),
            # It lets sentences end and saves what was said (`avatar_site.web.server.DRAIN_S`).
            stop_timeout_s=25,
        ),
        # Threads, not processes: tasks wait for the inference process, and none is left when the worker is killed.
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
    """Resident memory of a process, and of those it has started if wanted; None if it is gone."""
    try:
        process = psutil.Process(pid)
        family = (process, *process.children(recursive=True)) if with_children else (process,)
        return sum(each.memory_info().rss for each in family)
    except psutil.NoSuchProcess:
        return None
