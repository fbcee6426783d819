"""Static files, and what a browser may do with our pages and answers."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import SESSION_KEY
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin
from structlog.contextvars import bind_contextvars
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import StaticFile

_CONTENT = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "media-src 'self' blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
#: The admin's own scripts are inline and evaluate expressions.
_CONTENT_OF_ADMIN = _CONTENT.replace("script-src 'self'", "script-src 'self' 'unsafe-inline' 'unsafe-eval'")
_PERMISSIONS = "microphone=(self), autoplay=(self), camera=(), geolocation=(), payment=(), usb=()"


class StaticFilesMiddleware(WhiteNoiseMiddleware):
    """
    Serve static files whole.

    WhiteNoise streams them from a synchronous iterator, which ASGI would read to its end first, with a warning.
    """

    @staticmethod
    def serve(static_file: StaticFile, request: HttpRequest) -> HttpResponse:
        answer = static_file.get_response(request.method, request.META)
        content = b""
        if answer.file is not None:
            with answer.file as file:
                content = file.read()
        response = HttpResponse(content, status=int(answer.status))
        del response["Content-Type"]
        for name, value in answer.headers:
            response[name] = value
        return response


class BrowserPolicyMiddleware(MiddlewareMixin):
    """Send the policies of content (only what this site serves) and of permissions (the microphone, nothing else)."""

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        policy = _CONTENT_OF_ADMIN if request.path.startswith("/admin/") else _CONTENT
        response.headers.setdefault("Content-Security-Policy", policy)
        response.headers.setdefault("Permissions-Policy", _PERMISSIONS)
        return response


class UserInLogsMiddleware(MiddlewareMixin):
    """
    Bind the id of who is logged in, for the access log and for errors.

    Costs no query: it is bound once the session was read for another reason. Under ASGI only, where each request has a
    context of its own.
    """

    def process_view(self, request: HttpRequest, *view: Any) -> None:
        self._bind(request)

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        self._bind(request)
        return response

    def _bind(self, request: HttpRequest) -> None:
        session = getattr(request, "session", None)
        if isinstance(request, ASGIRequest) and session is not None and hasattr(session, "_session_cache"):
            user_id = session._session_cache.get(SESSION_KEY)
            if user_id is not None:
                bind_contextvars(user_id=str(user_id))


class NoStoreMiddleware(MiddlewareMixin):
    """Keep the API's JSON out of caches, a browser's included: it says who is logged in and what was said."""

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        if request.path.startswith("/api/") and response.headers.get("Content-Type", "").startswith("application/json"):
            response.headers.setdefault("Cache-Control", "no-store")
        return response
