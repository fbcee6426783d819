"""For working on AVATAR: errors in full, static files straight from `static/`."""

from avatar_site.settings.base import *  # noqa: F403 — a settings module is its base plus what differs

DEBUG = True
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["daphne", *INSTALLED_APPS]  # noqa: F405 — from base; `runserver` then speaks ASGI
WHITENOISE_AUTOREFRESH = True
