from typing import Any

from django.apps import AppConfig
from django.db import DEFAULT_DB_ALIAS
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate, pre_migrate
from django.utils.translation import gettext_lazy as _


class OperationsConfig(AppConfig):
    name = "avatar_site.operations"
    label = "operations"
    verbose_name = _("Operations")

    def ready(self) -> None:
        # Imported for their effects: tasks need the current Celery application, checks register themselves.
        from avatar_site import celery, checks  # noqa: F401 — see above
        from avatar_site.lib import stored_files
        from avatar_site.operations.sweep_guard import find_reason_against_sweeps
        from avatar_site.operations.tombstones.watching import watch_connection

        stored_files.add_guard(find_reason_against_sweeps)
        connection_created.connect(watch_connection)
        pre_migrate.connect(_remove_triggers, sender=self)
        post_migrate.connect(_install_triggers, sender=self)


def _remove_triggers(*, using: str, plan: list[Any], **kwargs: Any) -> None:
    from avatar_site.operations.tombstones import triggers

    if using == DEFAULT_DB_ALIAS and plan:
        triggers.remove(using=using)


def _install_triggers(*, using: str, **kwargs: Any) -> None:
    from avatar_site.operations.tombstones import triggers

    if using == DEFAULT_DB_ALIAS:
        triggers.install(using=using)
