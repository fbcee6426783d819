"""Parses the query string of the history page: filters, and which turns to show. Imports no requests."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from conversations.serializers import ListingSerializer

_SEQUENCE = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """The valid part of a query string: an invalid date is left out, not an error."""

    wanted: Mapping[str, Any] = field(default_factory=dict)
    #: Which turns of the open conversation to show: arguments of `queries.find_turns`.
    place: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, parameters: Mapping[str, str]) -> HistoryQuery:
        given = {name: value for name, value in parameters.items() if value}
        asked = ListingSerializer(data=given)
        if not asked.is_valid():
            asked = ListingSerializer(data={name: value for name, value in given.items() if name not in asked.errors})
            asked.is_valid(raise_exception=True)
        return cls(asked.validated_data, _read_place(parameters))

    @property
    def text(self) -> str:
        return str(self.wanted.get("q", "")).strip()

    @property
    def date_from(self) -> Any:
        return self.wanted.get("from")

    @property
    def date_to(self) -> Any:
        return self.wanted.get("to")

    @property
    def voice(self) -> Any:
        return self.wanted.get("voice")

    @property
    def is_pinned(self) -> bool:
        return bool(self.wanted.get("pinned"))

    @property
    def has_filters(self) -> bool:
        return bool(self.date_from or self.date_to or self.voice or self.is_pinned)

    @property
    def is_filtered(self) -> bool:
        return bool(self.text) or self.has_filters

    @property
    def encoded(self) -> str:
        """The filters as the beginning of a query string, "q=…&", or empty."""
        pairs = {"q": self.text, "from": self.date_from, "to": self.date_to, "voice": self.voice}
        chosen = {name: value for name, value in pairs.items() if value} | ({"pinned": 1} if self.is_pinned else {})
        return urlencode(chosen) + "&" if chosen else ""

    @property
    def as_suffix(self) -> str:
        """The filters as the query string of a link, with its question mark, or empty."""
        return f"?{self.encoded[:-1]}" if self.encoded else ""


def _read_place(parameters: Mapping[str, str]) -> dict[str, Any]:
    place: dict[str, Any] = {}
    for name in ("before", "after"):
        if _SEQUENCE.fullmatch(parameters.get(name, "")):
            place[name] = int(parameters[name])
    place["around"] = read_id(parameters.get("turn", ""))
    return place


def read_id(text: str) -> uuid.UUID | None:
    """Parse an id; None if it is not one."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
