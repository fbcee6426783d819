"""For serving. Plain HTTP on one machine by default; `AVATAR_HTTPS=yes` when a proxy in front of it speaks HTTPS."""

from avatar_site.settings.base import *  # noqa: F403 — a settings module is its base plus what differs
from avatar_site.settings.base import AVATAR_HTTPS

SESSION_COOKIE_SECURE = AVATAR_HTTPS
CSRF_COOKIE_SECURE = AVATAR_HTTPS
SECURE_SSL_REDIRECT = AVATAR_HTTPS
# Asked over plain HTTP, by what is on this machine or beside it. /health and /ready are answered before any redirect.
SECURE_REDIRECT_EXEMPT = [r"^metrics$"]
if AVATAR_HTTPS:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_HSTS_SECONDS = 30 * 24 * 60 * 60

# HSTS for all subdomains, and in the browsers' preload list, would bind hosts that are not ours to decide about.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
