"""Cleans text of users and engines, so that it is safe to show next to ours. Imports no Django."""

from __future__ import annotations

import re

#: C0 and C1 controls but tab, line feed and carriage return; then what reorders or hides text: Unicode's Bidi_Control
#: property (UAX #9), soft hyphen, zero-width space, word joiner and its invisible relatives, byte order mark,
#: interlinear annotations. Joiners (U+200C, U+200D) stay: scripts and emoji need them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
_LINE_BREAKS = re.compile("\r\n?|[\x85\u2028\u2029]")


def strip_unseen(text: str) -> str:
    """Remove control characters, and those that reorder or hide text; every kind of line break becomes a line feed."""
    return _UNSEEN.sub("", _LINE_BREAKS.sub("\n", text))


def clean_line(text: str) -> str:
    """Return the text as one line, without what `strip_unseen` removes and without white space at its ends."""
    return " ".join(strip_unseen(text).split())
