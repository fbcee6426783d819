"""Translates daphne's command line: its server is ours, with the gate of this site."""

import logging
import threading
from functools import partial
from typing import Any

from daphne.cli import CommandLineInterface

from avatar_site.web.server import Server

logger = logging.getLogger(__name__)


def take_in_spooled_turns() -> None:
    """Save what the calls of the process before could not. What cannot be saved now is left to beat."""
    from django.db import Error, connections

    from conversations.services import take_in_all_spooled_turns

    try:
        take_in_all_spooled_turns()
    except (Error, OSError):
        logger.exception("what waits to be kept is left for later")
    finally:
        connections.close_all()


class Command(CommandLineInterface):
    def load_asgi_app(self, asgi_app_path: str) -> Any:
        application = super().load_asgi_app(asgi_app_path)
        # It imports models, and Django is set up only by the application.
        from avatar_site.web.bodies import SiteGate

        self.server_class = partial(Server, gate=SiteGate())
        # Nobody waits for it: a database that is away would keep the site from starting.
        threading.Thread(target=take_in_spooled_turns, name="spool", daemon=True).start()
        return application


if __name__ == "__main__":
    Command.entrypoint()
