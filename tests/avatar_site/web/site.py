"""What tests have `python -m avatar_site.web` serve: the site's settings, and an application that answers lengths."""

import django

django.setup()

from tests.avatar_site.web.serving import application  # noqa: E402

__all__ = ["application"]
