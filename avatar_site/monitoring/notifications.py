"""
Tells of alerts by e-mail and webhook: each that opens, gets worse or is resolved, once a channel.

At least once: what was told is saved after it was sent. What cannot be sent is tried again each minute for a day.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import hmac
import json
import logging
import smtplib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.db.models import Q
from django.utils import timezone, translation
from django.utils.formats import date_format
from django.utils.translation import gettext, ngettext

from avatar_site.monitoring import sentences
from avatar_site.monitoring.models import Alert, AlertState, Severity

logger = logging.getLogger(__name__)

TIMEOUT_S = 10.0
#: What is resolved for longer is not told any more.
GIVE_UP_AFTER = dt.timedelta(days=1)
RESOLVED = "resolved"


class NotSent(Exception):
    """A channel did not take the message. The text says why, without passwords."""


@dataclass(frozen=True, slots=True)
class Channel:
    name: str
    send: Callable[[Sequence[Alert]], None]


def list_channels() -> list[Channel]:
    """Return the channels that are set."""
    channels = []
    if settings.AVATAR_ALERT_EMAILS:
        channels.append(Channel("email", send_email))
    if settings.AVATAR_ALERT_WEBHOOK_URL:
        channels.append(Channel("webhook", send_webhook))
    return channels


def find_news(alert: Alert, channel: str) -> str | None:
    """Return what a channel is to be told of an alert; None if it knows."""
    told = alert.told.get(channel)
    if alert.state == AlertState.RESOLVED:
        # One that came and went untold is no news.
        return RESOLVED if told not in (None, RESOLVED) else None
    if alert.state == AlertState.ACKNOWLEDGED and told is None:
        return None
    return alert.severity if told != alert.severity else None


def send_pending(*, now: dt.datetime) -> None:
    """Tell each channel its news, as one message. The caller holds a lock; a channel that fails is logged."""
    channels = list_channels()
    if not channels:
        return
    recent = ~Q(state=AlertState.RESOLVED) | Q(resolved_at__gte=now - GIVE_UP_AFTER)
    alerts = list(Alert.objects.filter(recent).order_by("opened_at", "pk"))
    for channel in channels:
        news = [(alert, told) for alert in alerts if (told := find_news(alert, channel.name)) is not None]
        if not news:
            continue
        try:
            with translation.override(settings.LANGUAGE_CODE):
                channel.send([alert for alert, _ in news])
        except NotSent as error:
            logger.warning("alerts could not be told by %s, and are tried again: %s", channel.name, error)
            continue
        for alert, told in news:
            alert.told[channel.name] = told
            Alert.objects.filter(pk=alert.pk).update(told=alert.told, notified_at=now)
        logger.info("%d alerts were told by %s", len(news), channel.name)


def make_subject(alerts: Sequence[Alert]) -> str:
    """Return the subject of a message: that of the only alert, or how many there are."""
    if len(alerts) == 1:
        (alert,) = alerts
        title = sentences.find_title(alert.condition)
        return f"AVATAR: {gettext('resolved')}: {title}" if _is_resolved(alert) else f"AVATAR: {title}"
    resolved = sum(map(_is_resolved, alerts))
    parts = []
    if opened := len(alerts) - resolved:
        parts.append(ngettext("{count} alert", "{count} alerts", opened).format(count=opened))
    if resolved:
        parts.append(ngettext("{count} resolved", "{count} resolved", resolved).format(count=resolved))
    return f"AVATAR: {', '.join(parts)}"


def make_text(alerts: Sequence[Alert]) -> str:
    return "\n".join(_make_line(alert) for alert in alerts)


def _make_line(alert: Alert) -> str:
    since = date_format(timezone.localtime(alert.opened_at), "Y-m-d H:i")
    if _is_resolved(alert):
        template = gettext("✔ resolved: {title} (since {since}): {sentence}")
    elif alert.severity == Severity.ERROR:
        template = gettext("✖ error: {title} (since {since}): {sentence}")
    else:
        template = gettext("! warning: {title} (since {since}): {sentence}")
    return template.format(title=sentences.find_title(alert.condition), since=since, sentence=str(alert))


def _is_resolved(alert: Alert) -> bool:
    return alert.state == AlertState.RESOLVED


def send_email(alerts: Sequence[Alert]) -> None:
    """Send one message to all recipients. Raises NotSent."""
    message = EmailMessage(
        make_subject(alerts),
        make_text(alerts),
        settings.AVATAR_EMAIL_FROM,
        settings.AVATAR_ALERT_EMAILS,
        connection=get_connection(timeout=TIMEOUT_S),
    )
    try:
        message.send()
    except smtplib.SMTPResponseException as error:
        raise NotSent(f"{error.smtp_code} {error.smtp_error!r}") from error
    except (OSError, smtplib.SMTPException) as error:
        raise NotSent(str(error) or type(error).__name__) from error


def send_webhook(alerts: Sequence[Alert]) -> None:
    """
    POST the alerts as JSON. Raises NotSent.

    `text` is what chats show (Slack, Mattermost and others). With a secret, `X-Avatar-Signature` is `sha256=` and the
    HMAC of the body.
    """
    body = json.dumps(
        {
            "text": f"{make_subject(alerts)}\n{make_text(alerts)}",
            "alerts": [
                {
                    "id": alert.pk,
                    "condition": alert.condition,
                    "subject": alert.subject,
                    "severity": alert.severity,
                    "state": alert.state,
                    "title": sentences.find_title(alert.condition),
                    "sentence": str(alert),
                    "opened_at": alert.opened_at.isoformat(),
                    "resolved_at": alert.resolved_at.isoformat() if alert.resolved_at else None,
                }
                for alert in alerts
            ],
        },
        ensure_ascii=False,
    ).encode()
    headers = {"Content-Type": "application/json; charset=utf-8"}
    if secret := settings.AVATAR_ALERT_WEBHOOK_SECRET:
        headers["X-Avatar-Signature"] = f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"
    status = asyncio.run(_post(settings.AVATAR_ALERT_WEBHOOK_URL, body, headers))
    if not 200 <= status < 300:
        raise NotSent(f"it answered {status}")


async def _post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """Return the status of the answer. Takes TIMEOUT_S at most, however slowly bytes come. Raises NotSent."""
    # Imported only where it is used.
    import httpx

    try:
        # The client's timeout is of each read: a receiver that sends a byte now and then would never reach it.
        async with (
            asyncio.timeout(TIMEOUT_S),
            httpx.AsyncClient(timeout=TIMEOUT_S) as client,
            # What it answers is not read: there may be no end to it.
            client.stream("POST", url, content=body, headers=headers) as response,
        ):
            return response.status_code
    except TimeoutError as error:
        raise NotSent(f"no answer within {TIMEOUT_S:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # Not its text: that has the address, whose path may be a password.
        raise NotSent(type(error).__name__) from error
