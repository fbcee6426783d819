"""`/health` and `/ready`, answered from memory before anything else of a request is looked at."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user
from django.db import Error as AnyDatabaseError
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.utils.decorators import async_only_middleware

from avatar_site import version
from avatar_site.lib.own_thread import OwnThread
from avatar_site.operations.status import Health, Snapshot, get_prober
from inference.interfaces import Role, RoleState
from realtime.admission import admission

#: `/health` does not wait longer for the login of who asks; it then answers as to others.
LOGIN_TIMEOUT_S = 0.025
_BEARER = "Bearer "
#: Of its own: a session that cannot be read blocks neither the prober nor calls.
_logins = OwnThread("logins of probes")


@async_only_middleware
def answer_probes(
    get_response: Callable[[HttpRequest], Awaitable[HttpResponse]],
) -> Callable[[HttpRequest], Awaitable[HttpResponse]]:
    """
    Middleware, to be the first: neither hosts, logins nor redirects to HTTPS keep a probe from its answer.

    The others run in threads, which a busy process makes wait.
    """

    async def respond(request: HttpRequest) -> HttpResponse:
        if request.path_info not in ("/health", "/ready"):
            return await get_response(request)
        may_see = request.path_info == "/health" and await may_see_detail(request)
        return answer(request, get_prober().snapshot, with_detail=may_see)

    return respond


def answer(request: HttpRequest, snapshot: Snapshot, *, with_detail: bool) -> HttpResponse:
    """Answer 200 or 503. Strangers may ask: without `with_detail` the body has the state alone."""
    if request.method not in ("GET", "HEAD"):
        return HttpResponseNotAllowed(["GET", "HEAD"])
    is_good = snapshot.health is not Health.UNHEALTHY
    body: dict[str, Any]
    if request.path_info == "/ready":
        # A draining process still answers, and is to get no more clients.
        is_good = is_good and not admission.is_draining
        body = {"status": "ready" if is_good else "not_ready"}
    else:
        body = describe(snapshot) if with_detail else {"status": snapshot.health.value}
    return HttpResponse(
        json.dumps(body),
        status=HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE,
        content_type="application/json",
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
    )


def describe(snapshot: Snapshot) -> dict[str, Any]:
    """Return the body of `/health` for operators. Bytes; null is what could not be read."""
    states = {} if snapshot.inference.status is None else {r.role: r.state for r in snapshot.inference.status.roles}
    memory = None
    if snapshot.memory is not None:
        kind, usage = snapshot.memory
        memory = {"kind": kind.value, "used": usage.used, "total": usage.total, "percent": usage.percent}
    return {
        "status": snapshot.health.value,
        "reasons": list(snapshot.reasons),
        "models": {role.value: states.get(role, RoleState.UNAVAILABLE).value for role in Role},
        "sessions": describe_sessions(snapshot),
        "memory": memory,
        "version": version.read_version(),
    }


def describe_sessions(snapshot: Snapshot) -> dict[str, int]:
    return {
        "active": snapshot.database.active,
        "limit": settings.AVATAR_MAX_SESSIONS,
        "waiting": snapshot.database.waiting,
    }


def has_token(request: HttpRequest) -> bool:
    """Whether the request carries AVATAR_METRICS_TOKEN (`Authorization: Bearer …`). Without the setting: never."""
    sent = request.headers.get("Authorization", "")
    token: str = settings.AVATAR_METRICS_TOKEN
    return bool(token) and hmac.compare_digest(sent.encode(), f"{_BEARER}{token}".encode())


async def may_see_detail(request: HttpRequest) -> bool:
    """Whether who asks has the token, or is logged in as an operator. Takes LOGIN_TIMEOUT_S at most."""
    if has_token(request):
        return True
    session_key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    if not session_key or get_prober().snapshot.database.problem:
        return False
    try:
        return await _logins.run(_is_operator, LOGIN_TIMEOUT_S, session_key)
    except (TimeoutError, AnyDatabaseError):
        return False


def _is_operator(session_key: str) -> bool:
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    user = get_user(request)
    return bool(user.is_active and user.is_staff)
