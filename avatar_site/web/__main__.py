"""Translates daphne's command line: its server is ours, with the gate of this site."""

from functools import partial
from typing import Any

from daphne.cli import CommandLineInterface

from avatar_site.web.server import Server


class Command(CommandLineInterface):
    def load_asgi_app(self, asgi_app_path: str) -> Any:
        application = super().load_asgi_app(asgi_app_path)
        # It imports models, and Django is set up only by the application.
        from avatar_site.web.bodies import SiteGate
        from realtime.admission import admission

        self.server_class = partial(Server, gate=SiteGate(), drain=admission.drain)
        return application


if __name__ == "__main__":
    Command.entrypoint()
