#!/usr/bin/env python
"""Django's command line."""

import os
import sys

import django
from django.core.exceptions import ImproperlyConfigured
from django.core.management import ManagementUtility, execute_from_command_line

from avatar_site.private_files import restrict_new_files

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "avatar_site.settings.prod")
    restrict_new_files()
    try:
        if sys.argv[1:2] == ["version"]:
            # Django answers this one itself, with its own version, before it looks for commands.
            django.setup()
            ManagementUtility(sys.argv).fetch_command("version").run_from_argv(sys.argv)
        else:
            execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        # A setting that cannot be used: its name says enough, where in the code it was read says nothing more.
        sys.exit(str(error))
