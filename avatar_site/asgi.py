"""The ASGI application of the web process: pages over HTTP, calls over a WebSocket."""

import os
from typing import Any

from asgiref.sync import SyncToAsync
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.core.signals import request_finished
from django.db import connections

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "avatar_site.settings.prod")
django_application = get_asgi_application()

# What follows imports models, which need the line above.
from django.urls import re_path  # noqa: E402

from avatar_site.lib.inference_client import get_inference  # noqa: E402
from inference.telemetry import tracing  # noqa: E402
from realtime.messages import CLOSE_UNKNOWN_CONVERSATION  # noqa: E402
from realtime.routing import websocket_urlpatterns  # noqa: E402


async def close_unknown(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Close a socket at an unknown URL. Without this Channels raises, and the log has a traceback."""
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": CLOSE_UNKNOWN_CONVERSATION})


urlpatterns = [
    *websocket_urlpatterns(get_inference()),
    re_path(r"", close_unknown),  # type: ignore[arg-type]  # an ASGI application, as Channels has it
]


def close_connections(**kwargs: Any) -> None:
    """
    Close the database connections of a request's thread, which ends with its request.

    Connections are kept (CONN_MAX_AGE) for the one thread that serves all calls, and has no such context.
    """
    if SyncToAsync.thread_sensitive_context.get(None) is not None:
        connections.close_all()


request_finished.connect(close_connections)
tracing.configure("web")

# The consumer itself checks login and origin: a browser sees a close code only after `accept()`.
application = ProtocolTypeRouter(
    {
        "http": django_application,
        "websocket": AuthMiddlewareStack(URLRouter(urlpatterns)),
    }
)
