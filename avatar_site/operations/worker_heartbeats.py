"""Heartbeats of a Celery worker, from the loop that takes tasks from the queue. Imports no Django but its settings."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from celery import bootsteps
from django.conf import settings

from avatar_site.operations.heartbeat_files import HeartbeatFile, find_worker_name
from inference.sd_notify import LoopWatch


class HeartbeatStep(bootsteps.StartStopStep):
    """
    Has the consumer's loop turn the watch. Celery stops this step while it has no connection to the broker.

    Tasks run in threads: neither a backup of an hour nor a task that hangs stops the loop. Leases are there for those.
    """

    requires = ("celery.worker.consumer:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        name = find_worker_name(consumer.hostname)
        file = HeartbeatFile(Path(settings.AVATAR_DATA_DIR), name) if name else None
        self._watch = LoopWatch(on_beat=file.renew if file else None)
        self._watch.start()
        self._waiting = ExitStack()
        self._asking: Any = None

    def start(self, consumer: Any) -> None:
        self._waiting.close()
        # With Redis, timers run in the consumer's loop. With files they have their own thread, which asks the loop.
        ask = (self._watch.note_turn, ()) if consumer.hub else (consumer.call_soon, (self._watch.note_turn,))
        self._asking = consumer.timer.call_repeatedly(self._watch.interval_s / 2, *ask)

    def stop(self, consumer: Any) -> None:
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
            # While Redis is away, Celery tries again for as long as it takes.
            self._waiting.enter_context(self._watch.waiting())

    shutdown = stop
