"""The forms behind which passwords are checked: both count failures, log them, and wait their turn for a hash."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.contrib.auth import forms as auth_forms
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils.translation import gettext as _

from avatar_site.accounts.login_throttle import HashingBusy, LoginThrottled, throttle

logger = logging.getLogger(__name__)

#: The codes of errors that say "later", not "wrong".
RETRY_CODES = frozenset({"throttled", "busy"})


def read_address(request: HttpRequest | None) -> str:
    """
    Return the client's address. Behind a proxy it is the last one of X-Forwarded-For, which the proxy has added.

    Those before it, and REMOTE_ADDR, which the web server takes from the first, are whatever the client has sent.
    """
    if request is None:
        return ""
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "") if settings.AVATAR_HTTPS else ""
    return str(forwarded.rpartition(",")[2].strip() or request.META.get("REMOTE_ADDR", ""))


@contextmanager
def _throttled(*, username: str, request: HttpRequest | None, what: str) -> Iterator[None]:
    """Check a password inside. A ValidationError from there counts as a failure. Raises ValidationError."""
    address = read_address(request)
    try:
        throttle.reserve(username=username, address=address)
        with throttle.hash_slot():
            yield
    except LoginThrottled as refusal:
        logger.warning("%s throttled: address %s, %.0f s", what, address, refusal.wait_s)
        text = _("Too many wrong passwords. Nothing is lost; please try again in {seconds} seconds.")
        seconds = math.ceil(refusal.wait_s)
        raise ValidationError(text.format(seconds=seconds), code="throttled", params={"wait_s": seconds}) from refusal
    except HashingBusy as refusal:
        throttle.release(username=username, address=address)
        logger.warning("%s delayed, too many at once: address %s", what, address)
        text = _("Many people are logging in right now. Please try again in a few seconds.")
        raise ValidationError(text, code="busy", params={"wait_s": 3}) from refusal
    except ValidationError:
        logger.warning("%s failed: %s, address %s", what, _describe_account(username), address)
        raise
    throttle.clear(username=username, address=address)


def _describe_account(username: str) -> str:
    """Name an account for the log by its id. Never by what was typed, which may be a password in the wrong field."""
    user_id = get_user_model().objects.filter(username=username).values_list("pk", flat=True).first()
    return "no such account" if user_id is None else f"user {user_id}"


class LoginForm(auth_forms.AuthenticationForm):
    """Django's, throttled."""

    def clean(self) -> dict[str, Any]:
        username, password = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if not username or not password:
            return super().clean()
        with _throttled(username=username, request=self.request, what="login"):
            return super().clean()

    @property
    def retry_error(self) -> ValidationError | None:
        """The error that says when to try again, if that is why the login was refused."""
        errors = self.non_field_errors().as_data()
        return next((error for error in errors if error.code in RETRY_CODES), None)


class PasswordChangeForm(auth_forms.PasswordChangeForm):
    """Django's, throttled: a session left open must not become a way to guess the password."""

    def __init__(self, *args: Any, request: HttpRequest | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request = request

    def clean_old_password(self) -> str:
        with _throttled(username=self.user.get_username(), request=self.request, what="password change"):
            return str(super().clean_old_password())
