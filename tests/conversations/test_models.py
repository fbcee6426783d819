import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import IntegrityError, transaction

from conversations.models import Conversation, Turn
from tests import factories


class TestOwnedBy:
    def test_is_the_owners_and_nobody_elses(self, alice: User, bob: User) -> None:
        hers = factories.create_conversation(alice)
        turn = factories.create_turn(hers)

        assert list(Conversation.objects.owned_by(alice)) == [hers]
        assert list(Turn.objects.owned_by(alice)) == [turn]
        for stranger in (bob, AnonymousUser()):
            assert not Conversation.objects.owned_by(stranger).exists()
            assert not Turn.objects.owned_by(stranger).exists()


class TestOrder:
    def test_is_decided_by_the_id_when_times_are_the_same(self) -> None:
        # Asked of the query: the index that serves it happens to have this order.
        assert Conversation.objects.newest_first().query.order_by == ("-last_turn_at", "-pk")
        assert Conversation.objects.oldest_first().query.order_by == ("last_turn_at", "pk")


@pytest.mark.django_db
class TestTurnConstraints:
    def test_refuse_two_turns_in_one_place(self) -> None:
        turn = factories.create_turn()

        with pytest.raises(IntegrityError), transaction.atomic():
            Turn.objects.create(conversation=turn.conversation, sequence=turn.sequence, speaker="user")

    def test_refuse_an_unknown_speaker(self) -> None:
        conversation = factories.create_conversation()

        with pytest.raises(IntegrityError), transaction.atomic():
            Turn.objects.create(conversation=conversation, sequence=1, speaker="narrator")
