"""Translates `manage.py version`: which AVATAR this is."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from avatar_site import version


class Command(BaseCommand):
    help = "Show AVATAR's version, its build, and the newest migration of each app."
    # Works without a database, and with a broken configuration of it.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        facts = version.describe()
        if options["json"]:
            self.stdout.write(json.dumps(facts))
            return
        self.stdout.write(f"AVATAR {facts['version']}, build {facts['build']}")
        for app, name in facts["schema"].items():
            self.stdout.write(f"  {app:<14} {name}")
