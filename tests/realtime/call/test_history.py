from __future__ import annotations

from uuid import UUID

import pytest

from inference.interfaces import Message
from realtime.call.history import History
from realtime.call.turns import PastTurn

TURNS = [PastTurn(UUID(int=number), Message("user", str(number))) for number in range(4)]


class TestHistory:
    @pytest.mark.parametrize(("most", "remembered"), [(0, []), (2, ["2", "3"]), (9, ["0", "1", "2", "3"])])
    def test_gives_the_model_the_last_messages(self, most: int, remembered: list[str]) -> None:
        history = History(TURNS, max_messages=most)

        assert [message.content for message in history.read_messages()] == remembered

    def test_finds_a_turn_and_what_came_before_it(self) -> None:
        history = History(TURNS, max_messages=2)

        assert history.find(TURNS[1].turn_id) is TURNS[1]
        assert history.list_up_to(TURNS[1].turn_id) == TURNS[:2]
        assert history.find(UUID(int=99)) is None

    def test_does_not_change_what_it_was_given(self) -> None:
        past = list(TURNS)

        History(past, max_messages=2).append(UUID(int=5), "assistant", "5")

        assert past == TURNS
