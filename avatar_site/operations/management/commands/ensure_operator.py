"""Translates `manage.py ensure_operator`."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from avatar_site.operations import services


class Command(BaseCommand):
    help = "Create the first operator account, if there is none. A password that had to be made up is printed once."

    def handle(self, *args: Any, **options: Any) -> None:
        created = services.ensure_operator(
            username=settings.AVATAR_ADMIN_USERNAME, password=settings.AVATAR_ADMIN_PASSWORD
        )
        if created is None:
            self.stdout.write("There is an operator account already.")
        elif settings.AVATAR_ADMIN_PASSWORD:
            self.stdout.write(f"Operator account: {created[0].username} (password from AVATAR_ADMIN_PASSWORD)")
        else:
            self.stdout.write(f"Operator account: {created[0].username}  password: {created[1]}  (shown only now)")
