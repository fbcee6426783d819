"""Verbs of live calls, for operators: end a call, log a person out."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from uuid import UUID

from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.models import Session
from django.db import transaction
from django.utils import timezone

from avatar_site.lib.live_calls import tell_call_ended, tell_login_changed
from realtime.models import CallState, LiveCall


@transaction.atomic
def end_calls(*, session_ids: Collection[UUID]) -> int:
    """
    End these calls, on whatever machine they are; their turns are saved. Return how many were live.

    At once where messages reach them, else within two seconds.
    """
    calls = LiveCall.objects.filter(pk__in=session_ids, state__in=(CallState.ACTIVE, CallState.WAITING))
    users = dict(calls.values_list("pk", "user_id"))
    calls.update(state=CallState.ENDING)
    for session_id, user_id in users.items():
        transaction.on_commit(partial(tell_call_ended, user_id, session_id), robust=True)
    return len(users)


@transaction.atomic
def log_out(*, user_id: int) -> int:
    """
    End all logins of a person, and with them the calls. Return how many logins there were.

    Reads every session that is valid: a session does not say whose it is but in its content.
    """
    valid = Session.objects.filter(expire_date__gt=timezone.now()).order_by("pk")
    keys = [
        session.session_key for session in valid.iterator() if session.get_decoded().get(SESSION_KEY) == str(user_id)
    ]
    Session.objects.filter(pk__in=keys).delete()
    transaction.on_commit(partial(tell_login_changed, user_id), robust=True)
    return len(keys)
