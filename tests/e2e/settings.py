"""For servers that a browser test starts: as in use, but static files come straight from `static/`."""

from avatar_site.settings.base import *  # noqa: F403 — a settings module is its base plus what differs

WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = True
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
