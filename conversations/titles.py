"""What a conversation is called until somebody names it."""

from __future__ import annotations

from conversations.models import Conversation


def make_title(text: str) -> str:
    """Make a title of the first words of a conversation."""
    words = " ".join(text.split())
    if len(words) <= Conversation.TITLE_LENGTH:
        return words
    return words[: Conversation.TITLE_LENGTH - 1].rstrip() + "…"
