from __future__ import annotations

from inference.context_window import TEMPLATE_TOKENS, fit_messages
from inference.interfaces import Message

SYSTEM = Message("system", "s" * 20)


def turn(number: int, length: int = 40) -> tuple[Message, Message]:
    return Message("user", f"u{number}".ljust(length, ".")), Message("assistant", f"a{number}".ljust(length, "."))


def fit(*messages: Message, budget: int) -> list[Message]:
    """One token a character."""
    return fit_messages(messages, budget_tokens=budget, count_tokens=len)


def cost(messages: list[Message]) -> int:
    return sum(len(message.content) + TEMPLATE_TOKENS for message in messages)


class TestFitMessages:
    def test_leaves_what_fits_alone(self) -> None:
        messages = [SYSTEM, *turn(1), *turn(2), Message("user", "now")]

        assert fit(*messages, budget=cost(messages)) == messages

    def test_drops_the_oldest(self) -> None:
        messages = [SYSTEM, *turn(1), *turn(2), *turn(3), Message("user", "now")]

        fitted = fit(*messages, budget=cost(messages) - 1)

        assert fitted[0] == SYSTEM
        assert fitted[1:] == messages[-(len(fitted) - 1) :]
        assert len(fitted) < len(messages)

    def test_keeps_what_all_conversations_share(self) -> None:
        shared = [Message("system", "s" * 20, is_shared=True), Message("user", "Hi", is_shared=True)]
        noon = Message("system", "It is noon.")
        messages = [*shared, noon, *turn(1), *turn(2), *turn(3), Message("user", "now")]

        fitted = fit(*messages, budget=cost(messages) - 1)

        assert fitted[:3] == [*shared, noon]
        assert all(message.is_shared for message in fitted[:2])
        assert len(fitted) < len(messages)

    def test_frees_enough_for_some_turns_at_once(self) -> None:
        history = [message for number in range(20) for message in turn(number)]
        budget = cost(history)

        fitted = fit(SYSTEM, *history, Message("user", "now"), budget=budget)

        assert cost(fitted) + cost(list(turn(0))) * 2 <= budget

    def test_never_begins_with_an_answer(self) -> None:
        history = [message for number in range(10) for message in turn(number)]

        for budget in range(100, cost(history), 7):
            fitted = fit(SYSTEM, *history, Message("user", "now"), budget=budget)

            assert fitted[0] == SYSTEM
            assert fitted[1].role == "user"
            assert fitted[-1].content == "now"
            assert cost(fitted) <= budget

    def test_keeps_the_end_of_a_message_that_is_too_long(self) -> None:
        question = Message("user", "x" * 500 + "?")

        fitted = fit(SYSTEM, *turn(1), question, budget=200)

        assert fitted[0] == SYSTEM
        assert len(fitted) == 2
        assert fitted[1].content.endswith("?")
        assert cost(fitted) <= 200

    def test_keeps_system_and_last_message_where_nothing_fits(self) -> None:
        fitted = fit(SYSTEM, *turn(1), Message("user", "now"), budget=1)

        assert [message.role for message in fitted] == ["system", "user"]

    def test_takes_no_messages(self) -> None:
        assert fit(budget=10) == []
