from django.urls import path

from avatar_site.operations import views

app_name = "operations"
urlpatterns = [
    path("api/system/info", views.system_info, name="system-info"),
]
