from __future__ import annotations

import itertools

import pytest

from realtime import turns
from realtime.turns import State, TurnMachine

HANDS_FREE = turns.UserStarted(may_interrupt=True)
HOLDING = turns.UserStarted(may_interrupt=False)


@pytest.fixture
def machine() -> TurnMachine:
    return TurnMachine()


@pytest.fixture
def thinking_machine(machine: TurnMachine) -> TurnMachine:
    machine.take(HANDS_FREE)
    machine.take(turns.UserFinished("你好"))
    return machine


@pytest.fixture
def speaking_machine(thinking_machine: TurnMachine) -> TurnMachine:
    thinking_machine.take(turns.ReplyAudible())
    return thinking_machine


class TestTurnMachine:
    def test_goes_once_around(self, machine: TurnMachine) -> None:
        steps = [
            (HANDS_FREE, turns.AnnounceSpeech(), State.USER_SPEAKING),
            (turns.UserPaused("你好"), turns.Speculate("你好"), State.USER_SPEAKING),
            (turns.UserFinished("你好"), turns.Answer("你好"), State.THINKING),
            (turns.ReplyAudible(), None, State.SPEAKING),
            (turns.ReplyEnded(), turns.Listen(), State.LISTENING),
        ]

        for event, action, state in steps:
            assert machine.take(event) == action
            assert machine.state is state

    def test_leaves_unanswered_what_the_user_has_gone_beyond(self, machine: TurnMachine) -> None:
        machine.take(HANDS_FREE)
        machine.take(turns.UserPaused("你好"))

        action = machine.take(turns.UserFinished("你好", is_overtaken=True))

        assert action == turns.LeaveUnanswered("你好")
        assert machine.state is State.LISTENING
        assert not machine.is_speculating

    def test_takes_a_speculation_back_when_the_user_goes_on(self, machine: TurnMachine) -> None:
        machine.take(HANDS_FREE)
        machine.take(turns.UserPaused("我想"))

        assert machine.take(turns.UserResumed()) == turns.DropSpeculation()
        assert machine.take(turns.UserResumed()) is None
        assert machine.state is State.USER_SPEAKING

    @pytest.mark.parametrize("fixture", ["thinking_machine", "speaking_machine"])
    def test_cancels_the_reply_when_the_user_barges_in(self, fixture: str, request: pytest.FixtureRequest) -> None:
        machine: TurnMachine = request.getfixturevalue(fixture)

        assert machine.take(HANDS_FREE) == turns.BargeIn()
        assert machine.state is State.USER_SPEAKING

    def test_goes_on_speaking_when_the_key_is_pressed_without_an_interrupt(self, speaking_machine: TurnMachine) -> None:
        assert speaking_machine.take(HOLDING) is None
        assert speaking_machine.state is State.SPEAKING

    def test_stops_when_asked_to(self, speaking_machine: TurnMachine) -> None:
        assert speaking_machine.take(turns.InterruptRequested()) == turns.StopReply()
        assert speaking_machine.state is State.LISTENING

    def test_has_nothing_to_stop_while_listening(self, machine: TurnMachine) -> None:
        assert machine.take(turns.InterruptRequested()) is None

    @pytest.mark.parametrize("event", [turns.UserTyped("hi"), turns.EndRequested()])
    def test_refuses_input_while_it_replies(self, speaking_machine: TurnMachine, event: turns.Event) -> None:
        assert speaking_machine.take(event) == turns.Refuse()
        assert speaking_machine.state is State.SPEAKING

    def test_lets_typed_text_win_over_what_is_being_heard(self, machine: TurnMachine) -> None:
        machine.take(HANDS_FREE)

        assert machine.take(turns.UserTyped("hi")) == turns.AnswerTyped("hi")
        assert machine.take(turns.UserFinished("late")) is None
        assert machine.state is State.THINKING

    def test_listens_again_when_nothing_was_heard(self, machine: TurnMachine) -> None:
        machine.take(HANDS_FREE)

        assert machine.take(turns.UserFinished("")) == turns.ReportNothingHeard()
        assert machine.state is State.LISTENING

    def test_listens_again_when_the_utterance_is_lost(self, machine: TurnMachine) -> None:
        machine.take(HANDS_FREE)

        assert machine.take(turns.UtteranceLost()) == turns.Listen()
        assert machine.state is State.LISTENING

    def test_drops_the_speculation_when_the_utterance_is_lost(self, machine: TurnMachine) -> None:
        machine.take(HANDS_FREE)
        machine.take(turns.UserPaused("我想"))

        assert machine.take(turns.UtteranceLost()) == turns.DropSpeculation()
        assert machine.state is State.LISTENING

    def test_answers_a_transcript_whose_beginning_it_ignored(self, speaking_machine: TurnMachine) -> None:
        speaking_machine.take(HOLDING)
        speaking_machine.take(turns.ReplyEnded())

        assert speaking_machine.take(turns.UserFinished("再見")) == turns.Answer("再見")

    def test_ignores_the_end_of_a_reply_that_was_stopped(self, speaking_machine: TurnMachine) -> None:
        speaking_machine.take(HANDS_FREE)

        assert speaking_machine.take(turns.ReplyEnded()) is None
        assert speaking_machine.state is State.USER_SPEAKING

    def test_never_speculates_while_it_replies(self) -> None:
        events: list[turns.Event] = [
            HANDS_FREE,
            HOLDING,
            turns.UserPaused("a"),
            turns.UserResumed(),
            turns.UserFinished("a"),
            turns.UserFinished(""),
            turns.UserTyped("b"),
            turns.EndRequested(),
            turns.InterruptRequested(),
            turns.UtteranceLost(),
            turns.ReplyAudible(),
            turns.ReplyEnded(),
        ]

        for sequence in itertools.product(events, repeat=4):
            machine = TurnMachine()
            for event in sequence:
                machine.take(event)
                assert not (machine.is_replying and machine.is_speculating)
