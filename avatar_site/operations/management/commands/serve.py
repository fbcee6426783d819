"""Translates `manage.py serve`: all processes of one machine under one supervisor."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from avatar_site.operations import processes, startup


class Command(BaseCommand):
    help = "Run AVATAR: web, worker, maintenance, beat and inference, until Ctrl-C."
    # Checks run before anything is started; `migrate` has not run yet when --prepare is given.
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", help="address to serve at (AVATAR_HOST)")
        parser.add_argument("--port", help="port to serve at (AVATAR_PORT)")
        parser.add_argument("--profile", help="which engines: cpu, gpu or fake (AVATAR_PROFILE)")
        parser.add_argument("--data-dir", help="folder of database, recordings and logs (AVATAR_DATA_DIR)")
        parser.add_argument(
            "--inference-address", help="unix:/path or host:port of the inference process (AVATAR_INFERENCE_ADDRESS)"
        )
        parser.add_argument(
            "--only",
            default=",".join(processes.NAMES),
            help="the processes to run here, separated by commas (default: %(default)s)",
        )
        parser.add_argument(
            "--prepare",
            action="store_true",
            help="fetch models, back up the database and migrate it, create the first operator account; then serve",
        )
        parser.add_argument(
            "--without-backup", action="store_true", help="with --prepare: migrate without a backup before it"
        )
        parser.add_argument("--status", action="store_true", help="show the processes that run, and leave")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            startup.apply_flags(options)
            if options["status"]:
                for line in startup.describe_running():
                    self._say(line)
                return
            startup.serve(
                only=options["only"],
                prepare=options["prepare"],
                is_backed_up=not options["without_backup"],
                is_verbose=options["verbosity"] > 1,
                say=self._say,
            )
        except startup.StartRefused as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            self._say("Stopped before it was started.")
            sys.exit(130)

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
