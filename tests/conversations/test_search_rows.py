import pytest
from django.contrib.auth.models import User
from django.db import connection

from conversations.models import Conversation, TurnSearch
from tests import factories
from tests.conversations.found import check_search


class TestMatching:
    def test_finds_what_was_said(self, alice: User, bob: User) -> None:
        check_search(alice, bob)

    def test_finds_a_title(self, alice: User) -> None:
        named = factories.create_conversation(alice, title="我的旅行計畫")
        factories.create_turn(named, text="words")

        assert list(Conversation.objects.owned_by(alice).matching("旅行", owner=alice)) == [named]

    def test_uses_the_index(self, alice: User) -> None:
        found = Conversation.objects.owned_by(alice).matching("天氣", owner=alice)
        plan = found.explain()

        assert "VIRTUAL TABLE INDEX" in plan if connection.vendor == "sqlite" else "turnsearch" in plan

    def test_forgets_rows_that_go_by_cascade(self, alice: User) -> None:
        factories.create_turn(factories.create_conversation(alice), text="天氣")
        Conversation.objects.all().delete()

        assert not TurnSearch.objects.exists()
        if connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO conversations_turnsearch_fts(conversations_turnsearch_fts) VALUES('integrity-check')"
                )
                cursor.execute(
                    "SELECT count(*) FROM conversations_turnsearch_fts WHERE conversations_turnsearch_fts MATCH 'u5929'"
                )
                assert cursor.fetchone() == (0,)


@pytest.mark.django_db
def test_words_are_kept_apart_by_owner() -> None:
    turn = factories.create_turn(text="天氣")

    assert TurnSearch.objects.get().owner_id == turn.conversation.owner_id
