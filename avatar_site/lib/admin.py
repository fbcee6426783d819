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
        # A filter of its own class names its parameter, as Django names those of columns.
        listed = {str(getattr(each, "parameter_name", each)).partition("__")[0] for each in self.list_filter}
        return name in listed and how in _FILTERS
