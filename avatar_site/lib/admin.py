"""Admins of rows with private content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.http import HttpRequest

if TYPE_CHECKING:
    from django.db.models import Model

#: The lookups of a list filter's choices.
_FILTERS = frozenset({"", "exact", "in", "isnull"})


class ListedLookupsMixin:
    """
    Allows the lookups of `list_filter` alone in the query string.

    Django allows any of the model's own fields: `?title__startswith=` would read a title letter by letter, from a list
    that does not show it.
    """

    list_filter: Any

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        name, _, how = lookup.partition("__")
        # A filter class sets its own parameter name; for a column's filter Django derives it from the field.
        listed = {str(getattr(each, "parameter_name", each)).partition("__")[0] for each in self.list_filter}
        return name in listed and how in _FILTERS


class ReadOnlyMixin:
    """A log: rows are looked at, and neither made, changed nor deleted."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False
