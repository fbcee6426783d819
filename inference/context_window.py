"""Fits a conversation into the model's context window by dropping the oldest messages. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inference.interfaces import Message

#: Tokens that a chat template adds to one message: role, markers, line ends.
TEMPLATE_TOKENS = 8
#: Share of the budget that is freed at once, so that the next turns fit without another cut: every cut changes the
#: beginning of the prompt and so invalidates the prefix cache.
HEADROOM = 0.25


def fit_messages(
    messages: Sequence[Message], *, budget_tokens: int, count_tokens: Callable[[str], int]
) -> list[Message]:
    """
    Drop the oldest messages until the rest fits `budget_tokens`.

    System messages, those all conversations share, and the last message stay, in order. The other kept messages never
    begin with an assistant's, because an answer without its question misleads. A last message that is itself too long
    keeps its end.
    """
    kept = [message for message in messages if message.role == "system" or message.is_shared]
    others = [message for message in messages if message.role != "system" and not message.is_shared]

    def cost(message: Message) -> int:
        return count_tokens(message.content) + TEMPLATE_TOKENS

    room = budget_tokens - sum(cost(message) for message in kept)
    total = sum(cost(message) for message in others)
    if total > room:
        target = int(room * (1 - HEADROOM))
        while len(others) > 1 and total > target:
            total -= cost(others.pop(0))
        while len(others) > 1 and others[0].role == "assistant":
            total -= cost(others.pop(0))
        if total > room and others:
            last = others[-1]
            share = max(1, int(len(last.content) * max(0, room - TEMPLATE_TOKENS) / max(1, total)))
            others = [Message(last.role, last.content[-share:])]
    return [*kept, *others]
