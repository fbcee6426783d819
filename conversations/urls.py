from django.urls import path

from conversations import views

app_name = "conversations"
urlpatterns = [
    path("", views.new_call, name="new-call"),
    path("c/<uuid:conversation_id>/", views.continued_call, name="continued-call"),
    path("history/", views.history, name="history"),
    path("history/<uuid:conversation_id>/", views.history, name="history-conversation"),
]
