"""Which address belongs to which app."""

from django.contrib import admin
from django.contrib.auth import views as auth_views
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from avatar_site.accounts.views import AccountView, LoginView, admin_login

handler400 = "avatar_site.error_pages.bad_request"
handler403 = "avatar_site.error_pages.permission_denied"
handler404 = "avatar_site.error_pages.page_not_found"
handler500 = "avatar_site.error_pages.server_error"

urlpatterns = [
    # One login page: the admin's own would be a second door, without the throttle.
    path("admin/login/", admin_login),
    path("admin/password_change/", RedirectView.as_view(pattern_name="account")),
    path("admin/", admin.site.urls),
    path("accounts/login/", LoginView.as_view(), name="login"),
    path("accounts/logout/", auth_views.LogoutView.as_view(), name="logout"),
    path("account/", AccountView.as_view(), name="account"),
    path("i18n/", include("django.conf.urls.i18n")),
    path("", include("avatar_site.operations.urls")),
    path("", include("avatar_site.monitoring.urls")),
    path("api/schema", SpectacularAPIView.as_view(), name="schema"),
    path(
        "api/docs",
        SpectacularSwaggerSplitView.as_view(url_name="schema", http_method_names=["get", "head"]),
        name="api-docs",
    ),
    path("api/", include("voices.api.urls")),
    path("voices/", include("voices.page_urls")),
    path("api/", include("conversations.api.urls")),
    path("", include("conversations.urls")),
]
