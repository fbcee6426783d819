from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest

from realtime import messages
from realtime.admission import FINISH_SENTENCE_S, Admission, Outcome


class Call:
    """A call as the admission sees it. Its sentence ends when the test says so, or at once."""

    def __init__(self, user_id: int = 1, conversation_id: UUID | None = None, *, is_speaking: bool = False) -> None:
        self.session_id = uuid4()
        self.user_id = user_id
        self.conversation_id = conversation_id
        self.is_conversation_unbegun = False
        self.sentence = asyncio.Event()
        if not is_speaking:
            self.sentence.set()
        self.ended: list[tuple[int, bool]] = []
        self.ended_at = 0.0

    async def finish_sentence(self) -> None:
        await self.sentence.wait()

    async def end(self, close_code: int) -> None:
        self.ended.append((close_code, self.sentence.is_set()))
        self.ended_at = asyncio.get_running_loop().time()


def enter(
    admission: Admission, call: Call, *, limit: int = 5, limit_per_person: int = 2, replaced: Call | None = None
) -> Outcome:
    return admission.enter(call, limit=limit, limit_per_person=limit_per_person, replaced=replaced)


class TestEntering:
    def test_is_refused_when_all_places_are_taken_and_again_possible_when_one_is_given_back(self) -> None:
        admission, first = Admission(), Call(user_id=1)
        enter(admission, first, limit=1)

        assert enter(admission, Call(user_id=2), limit=1) is Outcome.FULL
        admission.leave(first)
        assert enter(admission, Call(user_id=2), limit=1) is Outcome.ADMITTED

    def test_counts_the_calls_of_one_person_only_among_their_own(self) -> None:
        admission = Admission()
        enter(admission, Call(user_id=1), limit_per_person=1)

        assert enter(admission, Call(user_id=1), limit_per_person=1) is Outcome.TOO_MANY
        assert enter(admission, Call(user_id=2), limit_per_person=1) is Outcome.ADMITTED

    def test_takes_the_place_of_the_call_that_it_replaces(self) -> None:
        admission, lost, back = Admission(), Call(), Call()
        enter(admission, lost, limit=1, limit_per_person=1)

        assert enter(admission, back, limit=1, limit_per_person=1, replaced=lost) is Outcome.ADMITTED
        # The replaced call leaves when it is saved; the place is not its own any more.
        admission.leave(lost)
        assert admission.active == 1

    def test_gives_no_place_to_a_call_that_is_refused(self) -> None:
        admission, refused = Admission(), Call(user_id=2)
        enter(admission, Call(user_id=1), limit=1)

        enter(admission, refused, limit=1)
        admission.leave(refused)

        assert admission.active == 1


class TestWaiting:
    def test_holds_no_place(self) -> None:
        admission, waits = Admission(), Call(1)

        assert admission.wait(waits) is Outcome.WAITING
        assert admission.active == 0
        assert enter(admission, Call(2), limit=1) is Outcome.ADMITTED

    def test_gives_the_place_that_the_table_has_given(self) -> None:
        admission, waits, ending = Admission(), Call(1), Call(2)
        admission.wait(waits)
        enter(admission, ending, limit=1)

        assert admission.seat(waits) is Outcome.ADMITTED
        assert admission.active == 2
        admission.leave(waits)
        assert admission.active == 1


class TestFinding:
    def test_is_for_the_person_who_holds_the_conversation_alone(self) -> None:
        admission, conversation_id = Admission(), uuid4()
        alices = Call(1, conversation_id)
        enter(admission, Call(1, uuid4()))
        enter(admission, alices)

        assert admission.find(user_id=1, conversation_id=conversation_id) is alices
        assert admission.find(user_id=2, conversation_id=conversation_id) is None
        admission.leave(alices)
        assert admission.find(user_id=1, conversation_id=conversation_id) is None


@pytest.mark.virtual_clock
class TestDraining:
    async def test_ends_each_call_after_its_sentence_whatever_the_others_do(self) -> None:
        admission, quiet, speaking = Admission(), Call(1), Call(2, is_speaking=True)
        for call in (quiet, speaking):
            enter(admission, call)

        began_at = asyncio.get_running_loop().time()
        asyncio.get_running_loop().call_later(4, speaking.sentence.set)
        await admission.drain()

        assert quiet.ended == speaking.ended == [(messages.CLOSE_RESTARTING, True)]
        assert quiet.ended_at - began_at == pytest.approx(0, abs=0.001)
        assert speaking.ended_at - began_at == pytest.approx(4, abs=0.001)

    async def test_ends_a_call_that_does_not_come_to_an_end_of_its_sentence(self) -> None:
        admission, endless = Admission(), Call(is_speaking=True)
        enter(admission, endless)

        began_at = asyncio.get_running_loop().time()
        await admission.drain()

        assert endless.ended == [(messages.CLOSE_RESTARTING, False)]
        assert endless.ended_at - began_at == pytest.approx(FINISH_SENTENCE_S, abs=0.001)

    async def test_waits_for_calls_that_have_left_and_are_being_saved(self) -> None:
        admission, saving, saved = Admission(), Call(1), Call(2)
        with admission.saving(saved):
            pass

        with admission.saving(saving):
            await admission.drain()

        assert saving.ended == [(messages.CLOSE_RESTARTING, True)]
        assert saved.ended == []

    async def test_ends_calls_that_wait_at_once(self) -> None:
        admission, speaking, waits, left = Admission(), Call(is_speaking=True), Call(2), Call(3)
        enter(admission, speaking)
        admission.wait(waits)
        admission.wait(left)
        admission.leave(left)

        began_at = asyncio.get_running_loop().time()
        asyncio.get_running_loop().call_later(4, speaking.sentence.set)
        await admission.drain()

        assert waits.ended == [(messages.CLOSE_RESTARTING, True)]
        assert waits.ended_at - began_at == pytest.approx(0, abs=0.001)
        assert left.ended == []

    async def test_admits_no_calls_from_its_beginning(self) -> None:
        admission, speaking = Admission(), Call(is_speaking=True)
        enter(admission, speaking)
        draining = asyncio.create_task(admission.drain())
        await asyncio.sleep(0)

        assert enter(admission, Call(2)) is Outcome.DRAINING
        assert enter(admission, Call(1), replaced=speaking) is Outcome.DRAINING
        assert admission.wait(Call(2)) is admission.seat(Call(2)) is Outcome.DRAINING
        speaking.sentence.set()
        await draining
