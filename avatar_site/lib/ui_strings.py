"""Strings of the interface that several pages show. An app's page gives its scripts these and its own, as JSON."""

from __future__ import annotations

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

UiStrings = dict[str, str | Promise]

#: By key, as scripts ask for them. A script fills in `{name}`.
SHARED_STRINGS: UiStrings = {
    "play": _("Play"),
    "stopPlaying": _("Stop playing"),
    "seconds": _("{seconds} s"),
    "tryAgain": _("Try again"),
    "logIn": _("Log in"),
    "dismiss": _("Close"),
    "problem_title": _("That didn’t work"),
    "denied_title": _("The microphone is blocked"),
    "missing_title": _("No microphone found"),
    "taken_title": _("The microphone is in use"),
    "lost_title": _("The microphone is gone"),
    "insecure_title": _("This address is not secure"),
    "offline_title": _("You are offline"),
    "expired_title": _("Please log in again"),
}
