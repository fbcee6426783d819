"""Daphne's command line with our server class: limits, and this site's gate for large bodies."""

import gc
import logging
import os
import sys
import threading
from functools import partial
from typing import Any

from daphne.cli import CommandLineInterface

from avatar_site import version
from avatar_site.private_files import restrict_new_files
from avatar_site.web import access_log
from avatar_site.web.open_files import raise_limit
from avatar_site.web.server import Server
from inference.telemetry import logs
from realtime.messages import MAX_MESSAGE_CHARACTERS

#: Twice the largest message of the protocol: a message that is a little too large is answered with an error.
MAX_MESSAGE_BYTES = 2 * MAX_MESSAGE_CHARACTERS
#: A client that vanishes gives its place back after 5 + 10 s, and at most 2 s until the next check.
PING_INTERVAL_S = 5
PING_TIMEOUT_S = 10

logger = logging.getLogger(__name__)


def replay_spooled_turns() -> None:
    """Save the spooled turns of the previous process. Those that cannot be saved now are left to beat."""
    from django.db import Error, connections

    from conversations.call_store import replay_all_spooled_turns

    try:
        replay_all_spooled_turns()
    except (Error, OSError):
        logger.exception("spooled turns are left to beat")
    finally:
        connections.close_all()


def freeze_loaded_objects() -> None:
    """
    Leave what is loaded by now, which stays, out of later garbage collections. Call it with Django set up.

    A full collection walks each object: 180,000 of them block the event loop for 140 ms.
    """
    from django.urls import get_resolver

    # Loads the pages of all applications; otherwise the first request does.
    get_resolver()._populate()
    gc.collect()
    gc.freeze()
    logger.info("%d objects are left out of garbage collections", gc.get_freeze_count())


def make_server(*, action_logger: object, **options: Any) -> Server:
    """Return a server whose access log goes where all logs go; Daphne would print it."""
    return Server(action_logger=access_log.log_action if action_logger is not None else None, **options)


class Command(CommandLineInterface):
    def __init__(self) -> None:
        super().__init__()
        self.parser.set_defaults(
            websocket_max_message_size=MAX_MESSAGE_BYTES,
            websocket_max_frame_size=MAX_MESSAGE_BYTES,
            ping_interval=PING_INTERVAL_S,
            ping_timeout=PING_TIMEOUT_S,
        )

    def load_asgi_app(self, asgi_app_path: str) -> Any:
        application = super().load_asgi_app(asgi_app_path)
        # Now, while the files are those that were loaded: an upgrade may replace them.
        version.read_build()
        # After the application, which sets Django up: these import models.
        from avatar_site.operations.database_checks import refuse_newer_database
        from avatar_site.web import background
        from avatar_site.web.upload_limits import SiteGate, read_limits
        from realtime.admission import admission

        refuse_newer_database()
        self.server_class = partial(
            make_server,
            gate=SiteGate(),
            limits=read_limits(open_files=raise_limit()),
            drain=admission.drain,
            background=background.run,
        )
        # In the background: a database that is away would keep the site from starting.
        threading.Thread(target=replay_spooled_turns, name="spool", daemon=True).start()
        freeze_loaded_objects()
        return application


if __name__ == "__main__":
    restrict_new_files()
    # Before Daphne, which would log in a form of its own until Django is set up.
    try:
        logs.configure(logs.read_level(os.environ))
    except ValueError as error:
        sys.exit(f"web: {error}")
    Command.entrypoint()
