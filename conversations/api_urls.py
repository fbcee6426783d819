from django.urls import path

from conversations import api

app_name = "conversations_api"
urlpatterns = [
    path("conversations", api.ConversationList.as_view(), name="conversation-list"),
    path("conversations/export", api.Export.as_view(), name="export"),
    path("conversations/delete", api.Deletion.as_view(), name="delete"),
    path("conversations/<uuid:conversation_id>", api.ConversationDetail.as_view(), name="conversation"),
    path("conversations/<uuid:conversation_id>/turns", api.TurnList.as_view(), name="turn-list"),
    path("conversations/<uuid:conversation_id>/turns/<uuid:turn_id>", api.TurnDetail.as_view(), name="turn"),
    path("conversations/<uuid:conversation_id>/turns/<uuid:turn_id>/audio", api.TurnAudio.as_view(), name="turn-audio"),
    path("conversations/<uuid:conversation_id>/export", api.ConversationExport.as_view(), name="conversation-export"),
    path("retention", api.Retention.as_view(), name="retention"),
]
