from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class OperationsConfig(AppConfig):
    name = "avatar_site.operations"
    label = "operations"
    verbose_name = _("Operations")

    def ready(self) -> None:
        # Imported for their effects: tasks need the current Celery application, checks register themselves.
        from avatar_site import celery, checks  # noqa: F401 — see above
