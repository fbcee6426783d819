from django.urls import path

from conversations import api

app_name = "conversations_api"
urlpatterns = [
    path(
        "conversations/<uuid:conversation_id>/turns/<uuid:turn_id>/audio",
        api.turn_audio,
        name="turn-audio",
    ),
]
