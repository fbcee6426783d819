"""URLs of the pages of voices. Those of the API are in `voices.api.urls`."""

from django.urls import path

from voices import views

app_name = "voice_pages"
urlpatterns = [
    path("", views.voice_list, name="list"),
    path("new/", views.new_voice, name="new"),
    path("<uuid:profile_id>/", views.voice_detail, name="detail"),
]
