"""Translates `manage.py work_on_copy`, which the backup and restore commands run in a child process."""

from __future__ import annotations

import traceback
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from avatar_site.operations.backups import preparation
from avatar_site.operations.tombstones import log

_ACTIONS: dict[str, tuple[Any, Any]] = {
    "check": (preparation.check, preparation.CheckRequest),
    "prepare": (preparation.prepare, preparation.PrepareRequest),
    "rename": (preparation.rename, preparation.RenameRequest),
}


class Command(BaseCommand):
    help = "Part of verify_backup and restore: work on a copy of the data, in the data folder that is configured."
    # The copy may be of an older schema.
    requires_migrations_checks = False
    requires_system_checks: ClassVar[list[str]] = []  # type: ignore[misc]  # django-stubs has no ClassVar

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=sorted(_ACTIONS))
        parser.add_argument("request", type=Path, help="a JSON file")
        parser.add_argument("result", type=Path, help="the JSON file that is written")

    def handle(self, *args: Any, **options: Any) -> None:
        perform, request_type = _ACTIONS[options["action"]]
        request = msgspec.json.decode(options["request"].read_bytes(), type=request_type)
        try:
            # Tombstones of rows deleted here are drained once the copy is live, to the live log.
            with log.suspended():
                result = perform(request)
        except preparation.NewerSchema as error:
            raise CommandError(str(error)) from error
        except Exception as error:
            # The last line goes into the record of a verification, which is never encrypted. PostgreSQL's messages have
            # rows with what people said after their first line.
            self.stderr.write("".join(traceback.format_tb(error.__traceback__)))
            first_line = next(iter(str(error).splitlines()), "")
            raise CommandError(f"{type(error).__name__}: {first_line}") from None
        # The last connection that is closed empties SQLite's log: the copy is one file again.
        connections.close_all()
        options["result"].write_bytes(msgspec.json.encode(result))
