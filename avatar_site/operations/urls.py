from django.urls import path

from avatar_site.operations import views

app_name = "operations"
urlpatterns = [
    path("health", views.health, name="health"),
    path("api/system/info", views.system_info, name="system-info"),
]
