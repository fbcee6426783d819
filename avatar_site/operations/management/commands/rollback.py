"""Translates `manage.py rollback`: becomes the program that replaces code and environment."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from avatar_site.operations import release_switch


class Command(BaseCommand):
    help = "Return to the previous release: its code, its environment, and the backup of its database."
    # The release that is to be left may be a broken one.
    requires_system_checks = ()
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        release_switch.add_rollback_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        sys.stdout.flush()
        # The Python that environments are made with: ours is renamed.
        python = getattr(sys, "_base_executable", sys.executable)
        os.chdir(settings.BASE_DIR)
        os.execv(python, [python, "-I", release_switch.__file__, *sys.argv[1:]])  # noqa: S606 — ourselves
