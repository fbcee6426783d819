"""What all admins of rows with private content share."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

#: What the choices of a filter ask for.
_FILTERS = frozenset({"", "exact", "in", "isnull"})


class ListedLookupsMixin:
    """
    Take no lookup from the address but those of `list_filter`.

    Django takes any of the model's own fields: `?title__startswith=` reads a title letter by letter, from a list that
    does not show it.
    """

    list_filter: Any

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        name, _, how = lookup.partition("__")
        return name in self.list_filter and how in _FILTERS
