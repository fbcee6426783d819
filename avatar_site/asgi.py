"""What the web process serves: pages over HTTP, calls over a WebSocket."""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "avatar_site.settings.prod")
django_application = get_asgi_application()

# What follows imports models, which need the line above.
from realtime.routing import websocket_urlpatterns  # noqa: E402
from voices.engines import get_inference  # noqa: E402

# The consumer itself refuses strangers and foreign origins: a browser sees a close code only after `accept()`.
application = ProtocolTypeRouter(
    {
        "http": django_application,
        "websocket": AuthMiddlewareStack(URLRouter(websocket_urlpatterns(get_inference()))),
    }
)
