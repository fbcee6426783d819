"""One line of the log per request and per change of a socket, without queries. Imports no Django."""

from __future__ import annotations

import logging
from typing import Any

from inference.telemetry.logs import figures

logger = logging.getLogger(__name__)

#: Machines ask for these every few seconds: only what went wrong is of interest.
POLLED = frozenset({"/health", "/ready", "/metrics"})


def remove_query(url: str) -> str:
    """Return a URL without its query, which holds what users search for."""
    return url.partition("?")[0].partition("#")[0]


def log_action(protocol: str, action: str, details: dict[str, Any]) -> None:
    """Daphne's action logger: HTTP "complete", WebSocket "connecting", "connected", "rejected", "disconnected"."""
    path, client = remove_query(str(details.get("path"))), details.get("client")
    if protocol == "http":
        status, method = details["status"], details["method"]
        level = logging.DEBUG if path in POLLED and status < 400 else logging.INFO
        seconds = round(details["time_taken"], 3)
        extra = figures(status=status, seconds=seconds, bytes=details["size"], client=client)
        logger.log(level, "%s %s", method, path, extra=extra)
    else:
        logger.info("socket %s: %s", path, action, extra=figures(client=client))
