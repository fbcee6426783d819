"""What a browser may do on our pages."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin

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


class BrowserPolicyMiddleware(MiddlewareMixin):
    """Send the policies of content (only what this site serves) and of permissions (the microphone, nothing else)."""

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        policy = _CONTENT_OF_ADMIN if request.path.startswith("/admin/") else _CONTENT
        response.headers.setdefault("Content-Security-Policy", policy)
        response.headers.setdefault("Permissions-Policy", _PERMISSIONS)
        return response
