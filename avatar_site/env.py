"""
Reading the environment, typed.

A value that cannot be understood stops the start and names itself: `AVATAR_MAX_SESSIONS=abc: expected a whole number`.
An empty value counts as unset, so that a line of `.env.example` can be kept without a value.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import environ
from django.core.exceptions import ImproperlyConfigured

from inference.address import AddressError, check_address, check_secret

#: Every variable that has been asked for: what `.env.example` must list.
names_read: set[str] = set()

#: Of a token, so that none is guessed.
MIN_TOKEN_CHARACTERS = 20

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def read_file(path: Path) -> None:
    """Add the assignments of a `.env` file to the environment; what is set already wins. A missing file is no error."""
    if path.is_file():
        environ.Env.read_env(path, overwrite=False)


def text(name: str, default: str = "") -> str:
    names_read.add(name)
    return os.environ.get(name, "").strip() or default


def required(name: str, because: str) -> str:
    value = text(name)
    if not value:
        raise ImproperlyConfigured(f"{name} is not set: {because} needs it")
    return value


def choice(name: str, default: str, choices: tuple[str, ...]) -> str:
    value = text(name, default)
    if value not in choices:
        raise ImproperlyConfigured(f"{name}={value}: expected one of {', '.join(choices)}")
    return value


def boolean(name: str, default: bool) -> bool:
    value = text(name).lower()
    if not value:
        return default
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ImproperlyConfigured(f"{name}={value}: expected yes or no")


def whole_number(name: str, default: int, *, minimum: int, maximum: int) -> int:
    value = text(name)
    if not value:
        return default
    try:
        number = int(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name}={value}: expected a whole number") from None
    if not minimum <= number <= maximum:
        raise ImproperlyConfigured(f"{name}={value}: expected {minimum} to {maximum}")
    return number


def decimal_number(name: str, default: float, *, minimum: float, maximum: float) -> float:
    value = text(name)
    if not value:
        return default
    try:
        number = float(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name}={value}: expected a number") from None
    if not minimum <= number <= maximum:
        raise ImproperlyConfigured(f"{name}={value}: expected {minimum} to {maximum}")
    return number


def time_zone(name: str, default: str) -> str:
    """The name of a time zone, such as Asia/Taipei."""
    value = text(name, default)
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ImproperlyConfigured(f"{name}={value}: expected a time zone, such as Asia/Taipei") from None
    return value


def folder(name: str, default: Path) -> Path:
    """An absolute path. A relative one is taken from the current folder; `~` is the user's home."""
    return Path(text(name, str(default))).expanduser().absolute()


def names(name: str, default: list[str]) -> list[str]:
    """A list, separated by commas."""
    return [part.strip() for part in text(name).split(",") if part.strip()] or default


def database(name: str, default: dict[str, Any]) -> dict[str, Any]:
    """A Django database from a URL such as `postgres://user:password@host/name`."""
    value = text(name)
    if not value:
        return default
    try:
        parsed = dict(environ.Env.db_url_config(value))
    except (ValueError, ImproperlyConfigured):
        parsed = {}
    if not str(parsed.get("ENGINE", "")).startswith("django."):
        # The value may hold a password: it is not repeated.
        raise ImproperlyConfigured(f"{name}: expected a URL such as postgres://user:password@host/name")
    return parsed


@dataclass(frozen=True, slots=True)
class EmailServer:
    """A mail server. `host` is empty if there is none."""

    host: str = ""
    port: int = 25
    user: str = ""
    password: str = ""
    #: Encrypted from the first byte, or after STARTTLS.
    use_ssl: bool = False
    use_tls: bool = False


_EMAIL_PORTS = {"smtp": 25, "smtp+tls": 587, "smtps": 465}


def email_server(name: str) -> EmailServer:
    """A mail server from `smtp://host`, `smtp+tls://user:password@host:587` (STARTTLS) or `smtps://…`."""
    value = text(name)
    if not value:
        return EmailServer()
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        url, port = urlsplit(""), None
    if url.scheme not in _EMAIL_PORTS or not url.hostname or url.path.strip("/") or url.query:
        # The value may hold a password: it is not repeated.
        raise ImproperlyConfigured(f"{name}: expected a URL such as smtp+tls://user:password@host:587")
    return EmailServer(
        url.hostname,
        port or _EMAIL_PORTS[url.scheme],
        unquote(url.username or ""),
        unquote(url.password or ""),
        use_ssl=url.scheme == "smtps",
        use_tls=url.scheme == "smtp+tls",
    )


def web_address(name: str) -> str:
    """An address that begins with https:// or http://, or empty."""
    value = text(name)
    if value and not (value.startswith(("http://", "https://")) and urlsplit(value).hostname):
        # Its path may be a password: it is not repeated.
        raise ImproperlyConfigured(f"{name}: expected an address such as https://chat.example.tw/hooks/…")
    return value


def certificate(name: str) -> str:
    """The absolute path of a PEM file, or `host:port`; or empty."""
    value = text(name)
    host, _, port = value.rpartition(":")
    if value and not value.startswith("/") and not (host and port.isdecimal()):
        raise ImproperlyConfigured(f"{name}={value}: expected /path/of/certificate.pem or host:port")
    return value


def inference_address(name: str, default: str) -> str:
    """`unix:/path` or `host:port`."""
    value = text(name, default)
    try:
        check_address(value)
    except AddressError as error:
        raise ImproperlyConfigured(f"{name}={value}: {error}") from None
    return value


def inference_secret(name: str, *, address: str) -> str:
    """What the callers of the inference process at `address` must know: required for TCP, which any user can reach."""
    value = text(name)
    try:
        check_secret(address, value)
    except AddressError as error:
        raise ImproperlyConfigured(str(error)) from None
    return value


def token(name: str) -> str:
    """A secret that programs send in a header; empty: nobody may. Never repeated in an error."""
    value = text(name)
    if value and (len(value) < MIN_TOKEN_CHARACTERS or not (value.isascii() and value.isprintable())):
        raise ImproperlyConfigured(f"{name}: expected at least {MIN_TOKEN_CHARACTERS} printable ASCII characters")
    return value


def secret(name: str, *, kept_at: Path) -> str:
    """A secret from the environment; else one that is generated once and kept in a file only its owner can read."""
    value = text(name)
    if value:
        return value
    try:
        return _read_secret(kept_at)
    except FileNotFoundError:
        pass
    kept_at.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may start at once: each writes its own file, and the first link wins.
    draft = kept_at.with_name(f"{kept_at.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(64))
    try:
        os.link(draft, kept_at)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return _read_secret(kept_at)


def _read_secret(path: Path) -> str:
    value = path.read_text(encoding="ascii").strip()
    if len(value) < 50:
        raise ImproperlyConfigured(f"{path} is damaged: remove it, and everybody has to log in again")
    return value
