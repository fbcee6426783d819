"""Theme of the admin: the product's colours, and the theme's words, which it ships in English only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django.http import HttpRequest

#: Interpolated between the values of static/css/tokens.css: 50 on a light page, 950 on a dark one.
_PRIMARY = {
    "50": "#eefaf6",
    "100": "#d5ece5",
    "200": "#aee0d1",
    "300": "#84e6cc",
    "400": "#57d6b5",
    "500": "#2fb394",
    "600": "#0a7562",
    "700": "#075a4b",
    "800": "#0c473c",
    "900": "#123a31",
    "950": "#04211a",
}
_BASE = {
    "50": "#f5f7f5",
    "100": "#e9edea",
    "200": "#d7deda",
    "300": "#a8b8b1",
    "400": "#8b9b94",
    "500": "#5f6e67",
    "600": "#47564f",
    "700": "#364541",
    "800": "#273330",
    "900": "#141c1a",
    "950": "#0b1110",
}

#: The theme passes these to gettext; named here, makemessages finds them.
WORDS = (
    _("Action"),
    _("All applications"),
    _("Apply Filters"),
    _("Clear all filters"),
    _("Clear selection"),
    _("Click here to select the objects across all pages"),
    _("Dark"),
    _("Filter navigation items"),
    _("Filters"),
    _("General"),
    _("Light"),
    _("More actions"),
    _("No data"),
    _("No results found"),
    _("No results matching your query"),
    _("No, take me back"),
    _("Record picture"),
    _("Reset filters"),
    _("Return to site"),
    _("Run"),
    _("Run the selected action"),
    _("Search apps and models..."),
    _("Select action"),
    _("Select action to run"),
    _("Select all rows"),
    _("Select record"),
    _("Select value"),
    _("Show all"),
    _("Summary"),
    _("System"),
    _("This item will be deleted."),
    _("This page yielded into no results. Create a new item or reset your filters."),
    _("Type to search"),
    _("Unknown"),
    _("Yes, I’m sure"),
)


def _read_icon_url(request: HttpRequest) -> str:
    # Imported here: the settings import this module.
    from django.templatetags.static import static

    return static("img/icon.svg")


def _describe_version(request: HttpRequest) -> str:
    # Imported here, as above: the version is of the site, whose settings import this module.
    from avatar_site import version

    return f"{version.read_version()} · {version.read_build()}"


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "AVATAR",
    "SITE_HEADER": "AVATAR",
    "SITE_SUBHEADER": _describe_version,
    "SITE_ICON": _read_icon_url,
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": _read_icon_url}],
    "SHOW_BACK_BUTTON": True,
    # The theme's place for "staging" and "production".
    "ENVIRONMENT": "avatar_site.monitoring.admin.make_badge",
    "DASHBOARD_CALLBACK": "avatar_site.monitoring.dashboard.add_to_context",
    "COLORS": {"primary": _PRIMARY, "base": _BASE},
}
