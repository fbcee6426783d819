"""Translates daphne's command line: its server is ours, with the gate of this site."""

from functools import partial
from typing import Any

from daphne.cli import CommandLineInterface

from avatar_site.private_files import restrict_new_files
from avatar_site.web.open_files import raise_limit
from avatar_site.web.server import Server
from realtime.protocol import MAX_MESSAGE_CHARACTERS

#: Twice the largest message that the protocol promises to take: what is a little too large is answered with an error.
MAX_MESSAGE_BYTES = 2 * MAX_MESSAGE_CHARACTERS
#: A client that is gone without a word gives its place back after 5 + 10 s, and at most 2 s until the next look.
PING_INTERVAL_S = 5
PING_TIMEOUT_S = 10


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
        # It imports models, and Django is set up only by the application.
        from avatar_site.web.bodies import SiteGate, read_limits

        self.server_class = partial(Server, gate=SiteGate(), limits=read_limits(open_files=raise_limit()))
        return application


if __name__ == "__main__":
    restrict_new_files()
    Command.entrypoint()
