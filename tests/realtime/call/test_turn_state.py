from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest

from realtime.call.turn_state import TRANSITIONS, Action, Cue, State, TurnState

#: Cues that lead from the beginning of a call into each state.
WAYS: Mapping[State, list[Cue]] = {
    State.LISTENING: [],
    State.USER_SPEAKING: [Cue.SPEECH_BEGAN],
    State.REPLYING: [Cue.TYPED],
}


def make_turn_state(state: State) -> TurnState:
    turn = TurnState()
    for cue in WAYS[state]:
        turn.advance(cue)
    assert turn.state is state
    return turn


class TestTransitions:
    def test_name_every_cue_in_every_state(self) -> None:
        assert set(TRANSITIONS) == set(itertools.product(State, Cue))

    @pytest.mark.parametrize(("state", "cue"), TRANSITIONS, ids=lambda part: part.value)
    def test_are_walked(self, state: State, cue: Cue) -> None:
        next_state, action = TRANSITIONS[state, cue]
        turn = make_turn_state(state)

        assert turn.advance(cue) is action
        assert turn.state is next_state
        assert turn.is_replying is (next_state is State.REPLYING)
        assert turn.is_user_speaking is (next_state is State.USER_SPEAKING)

    def test_answer_exactly_when_a_reply_begins(self) -> None:
        begins = {action for (state, _), (after, action) in TRANSITIONS.items() if state is not after is State.REPLYING}

        assert begins == {Action.ANSWER, Action.ANSWER_TYPED}

    def test_leave_a_reply_only_when_it_ends_or_is_stopped(self) -> None:
        leaves = {action for (state, _), (after, action) in TRANSITIONS.items() if after is not state is State.REPLYING}

        assert leaves == {Action.BARGE_IN, Action.STOP_REPLY, Action.LISTEN}


class TestTurnState:
    def test_goes_once_around(self) -> None:
        turn = TurnState()

        steps = [turn.advance(cue) for cue in (Cue.SPEECH_BEGAN, Cue.PAUSED, Cue.FINISHED, Cue.REPLY_ENDED)]

        assert steps == [Action.ANNOUNCE_SPEECH, Action.SPECULATE, Action.ANSWER, Action.LISTEN]
        assert turn.state is State.LISTENING

    def test_ignores_the_end_of_a_reply_that_was_stopped(self) -> None:
        turn = make_turn_state(State.REPLYING)
        turn.advance(Cue.INTERRUPT_REQUESTED)

        assert turn.advance(Cue.REPLY_ENDED) is None
        assert turn.state is State.LISTENING

    def test_lets_typed_text_win_over_what_is_being_heard(self) -> None:
        turn = make_turn_state(State.USER_SPEAKING)

        assert turn.advance(Cue.TYPED) is Action.ANSWER_TYPED
        assert turn.advance(Cue.FINISHED) is None
        assert turn.state is State.REPLYING

    def test_answers_a_transcript_whose_beginning_it_ignored(self) -> None:
        turn = make_turn_state(State.REPLYING)
        turn.advance(Cue.HELD_SPEECH_BEGAN)
        turn.advance(Cue.REPLY_ENDED)

        assert turn.advance(Cue.FINISHED) is Action.ANSWER
