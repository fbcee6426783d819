from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class OperationsConfig(AppConfig):
    name = "avatar_site.operations"
    label = "operations"
    verbose_name = _("Operations")

    def ready(self) -> None:
        # Tasks are sent through the current Celery application, and checks run once they are imported.
        from avatar_site import celery, checks  # noqa: F401 — imported for what importing does
