"""URLs of the API of conversations."""

from django.urls import path

from conversations.api import conversations, exports, retention, turns

app_name = "conversations_api"
urlpatterns = [
    path("conversations", conversations.ConversationList.as_view(), name="conversation-list"),
    path("conversations/export", exports.Export.as_view(), name="export"),
    path("conversations/delete", exports.Deletion.as_view(), name="delete"),
    path("conversations/<uuid:conversation_id>", conversations.ConversationDetail.as_view(), name="conversation"),
    path("conversations/<uuid:conversation_id>/turns", turns.TurnList.as_view(), name="turn-list"),
    path("conversations/<uuid:conversation_id>/turns/<uuid:turn_id>", turns.TurnDetail.as_view(), name="turn"),
    path(
        "conversations/<uuid:conversation_id>/turns/<uuid:turn_id>/audio", turns.TurnAudio.as_view(), name="turn-audio"
    ),
    path(
        "conversations/<uuid:conversation_id>/export", exports.ConversationExport.as_view(), name="conversation-export"
    ),
    path("retention", retention.Retention.as_view(), name="retention"),
]
