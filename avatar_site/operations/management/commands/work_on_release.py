"""Translates `manage.py work_on_release`: what `operations/release_switch.py` asks. Answers with one JSON object."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from avatar_site.operations import releases
from avatar_site.operations.backups import catalogue, creation
from avatar_site.operations.backups.manifest import BadManifest
from avatar_site.operations.backups.targets import BadTarget, open_target


class Command(BaseCommand):
    help = "Answer `make upgrade` and `make rollback`; not for people."
    # The code may be newer than the database, or older.
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        questions = parser.add_subparsers(dest="question", required=True)
        questions.add_parser("describe")
        questions.add_parser("migrate")
        question = questions.add_parser("back-up")
        question.add_argument("reason", choices=("before-upgrade", "before-restore"))
        question.add_argument("--only", choices=sorted(creation.PARTS))
        question = questions.add_parser("count-since")
        question.add_argument("name")
        question.add_argument("target")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            answer = self._answer(options)
        except (releases.BackupFailed, catalogue.NoSuchBackup, BadManifest, BadTarget, DatabaseError, OSError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(json.dumps(answer))

    def _answer(self, options: dict[str, Any]) -> dict[str, Any]:
        match options["question"]:
            case "describe":
                return releases.describe()
            case "migrate":
                releases.migrate(say=self._say)
                return {}
            case "back-up":
                parts = frozenset({options["only"]}) if options["only"] else creation.PARTS
                return {"backup": releases.back_up(reason=options["reason"], parts=parts, say=self._say)}
            case _:
                target = open_target(options["target"])
                return releases.count_since(name=options["name"], target=target)

    def _say(self, line: str) -> None:
        # The answer alone is on stdout.
        print(f"  {line}", file=sys.stderr, flush=True)
