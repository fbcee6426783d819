"""Which address belongs to which app."""

from django.contrib import admin
from django.contrib.auth import views as auth_views
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

handler400 = "avatar_site.error_pages.bad_request"
handler403 = "avatar_site.error_pages.permission_denied"
handler404 = "avatar_site.error_pages.page_not_found"
handler500 = "avatar_site.error_pages.server_error"

urlpatterns = [
    path("admin/", admin.site.urls),
    path("accounts/login/", auth_views.LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("accounts/logout/", auth_views.LogoutView.as_view(), name="logout"),
    path("i18n/", include("django.conf.urls.i18n")),
    path("", include("avatar_site.operations.urls")),
    path("api/schema", SpectacularAPIView.as_view(), name="schema"),
    path(
        "api/docs",
        SpectacularSwaggerSplitView.as_view(url_name="schema", http_method_names=["get", "head"]),
        name="api-docs",
    ),
    path("api/", include("voices.api_urls")),
    path("voices/", include("voices.page_urls")),
    path("api/", include("conversations.api_urls")),
    path("", include("conversations.urls")),
]
