from django.urls import path

from avatar_site.operations import api

app_name = "operations"
urlpatterns = [
    path("api/system/info", api.SystemInfo.as_view(), name="system-info"),
]
