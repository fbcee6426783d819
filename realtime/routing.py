"""URL routes of WebSockets."""

from __future__ import annotations

from django.urls import URLPattern, path

from inference.interfaces import Inference
from realtime.consumers import VoiceConsumer


def websocket_urlpatterns(inference: Inference) -> list[URLPattern]:
    return [path("ws/chat", VoiceConsumer.as_asgi(inference=inference), name="voice-socket")]
