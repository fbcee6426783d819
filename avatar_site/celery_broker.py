"""
The queue of one machine: Kombu's filesystem transport, made to survive a full disk and a process killed in writing.

Kombu writes messages and its table of queues in place. What was cut off is then a file that ends every worker that
reads it.
"""

from __future__ import annotations

import logging
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from django.conf import settings
from kombu.exceptions import ChannelError
from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps, loads

logger = logging.getLogger(__name__)

#: Unreadable messages that one read skips; more wait for the next.
MAX_SKIPPED = 1000


class Channel(filesystem.Channel):
    """Kombu's channel with atomic messages; those that cannot be read are removed and skipped."""

    # Kombu calls it by position; its own classes disagree about the name.
    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Add a message. Raises ChannelError when it cannot be written, and leaves nothing of it."""
        # `_get` sorts by name, and reads the queue's name after the first dot.
        path = Path(self.data_folder_out) / f"{time.time_ns():020d}_{uuid.uuid4()}.{queue}.msg"
        partial = path.with_name(f"partial-{uuid.uuid4()}")
        try:
            partial.write_text(dumps(payload))
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ChannelError(f"cannot write a message to {self.data_folder_out}: {error.strerror}") from error

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        """Take the oldest readable message. Raises Empty."""
        for _ in range(MAX_SKIPPED):
            try:
                return super()._get(queue)
            except ValueError as error:
                # Kombu has removed the file before it reads it.
                logger.warning("a message in queue %s cannot be read and is skipped: %s", queue, error)
        raise Empty

    def get_table(self, exchange: str) -> Any:
        """Return the queues bound to an exchange; none when its file cannot be read: binding writes it again."""
        try:
            return super().get_table(exchange)
        except ValueError:
            return []

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        self._remove_unreadable_table(exchange)
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)
        except ChannelError:
            self._remove_unreadable_table(exchange)
            raise

    def _remove_unreadable_table(self, exchange: str) -> None:
        path = self._exchange_file(exchange)
        try:
            loads(path.read_text())
        except FileNotFoundError:
            pass
        except ValueError:
            logger.warning("the table of queues %s cannot be read and is written again", path.name)
            path.unlink(missing_ok=True)


class Transport(filesystem.Transport):
    Channel = Channel


def install_transport() -> None:
    """Have `filesystem://` mean this transport, and create its folders, which Kombu does not."""
    TRANSPORT_ALIASES["filesystem"] = f"{__name__}:{Transport.__name__}"
    for option, folder in getattr(settings, "CELERY_BROKER_TRANSPORT_OPTIONS", {}).items():
        if option.endswith(("folder", "_in", "_out")):
            Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
