"""Pages without calls, for servers that speak only WSGI."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "avatar_site.settings.prod")
application = get_wsgi_application()
