"""What a conversation is called until somebody names it."""

from __future__ import annotations

from avatar_site.lib.text import clean_line
from conversations.models import Conversation, Speaker


def make_title(text: str) -> str:
    """Make a title of the first words of a conversation."""
    words = clean_line(text)
    if len(words) <= Conversation.TITLE_LENGTH:
        return words
    return words[: Conversation.TITLE_LENGTH - 1].rstrip() + "…"


def find_title(conversation: Conversation) -> str:
    """Make one of the first words of the user that are a part of the conversation; empty if there are none."""
    first = conversation.turns.remembered().filter(speaker=Speaker.USER).in_order().first()
    return make_title(first.text) if first else ""
