"""The pages of what was said, as a browser without scripts sees them."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from conversations.models import Conversation, Turn
from conversations.queries import TURNS_A_PAGE
from tests import factories
from voices.models import VoiceProfile

ENGLISH = {"accept-language": "en"}
#: What a person waits for and a browser lays out, whatever was said in all.
MAX_PAGE_BYTES = 300_000


def make_long_conversation(owner: User, count: int) -> Conversation:
    conversation = factories.create_conversation(owner, last_turn_at=timezone.now())
    Turn.objects.bulk_create(
        Turn(
            conversation=conversation,
            sequence=sequence,
            speaker=("avatar", "user")[sequence % 2],
            text=f"Sentence {sequence}.",
            language="en",
            audio=f"conversations/1/{sequence}.ogg",
            audio_duration_ms=3000,
            latency={"stt": 300, "ttft": 500, "ttfa": 900, "total": 900},
        )
        for sequence in range(1, count + 1)
    )
    return conversation


def read_sentences(page: str) -> list[int]:
    return [int(number) for number in re.findall(r"Sentence (\d+)\.</p>", page)]


@pytest.fixture
def long_conversation(alice: User) -> Conversation:
    return make_long_conversation(alice, 250)


class TestHistoryPage:
    def read_voices(self, client: Client, query: str = "") -> list[tuple[str, str, str]]:
        page = client.get(f"/history/{query}", headers=ENGLISH).content.decode()
        (menu,) = re.findall(r'<select class="input" id="voice" .*?</select>', page, re.DOTALL)
        return re.findall(r'<option value="([^"]*)"( selected)?>([^<]+)<', menu)

    def test_offers_voices_that_spoke_and_are_no_longer_to_be_had(
        self, alices_client: Client, alice: User, bob: User
    ) -> None:
        conversation = factories.create_conversation(alice)
        own = factories.create_voice_profile(owner=alice, name="Switched off")
        shared = factories.create_voice_profile(owner=bob, name="Shared", is_shared=True)
        factories.create_voice_profile(owner=bob, name="Secret")
        for voice in (own, shared):
            factories.create_turn(conversation, speaker="avatar", voice_profile_id=voice.pk)
        VoiceProfile.objects.filter(pk=own.pk).update(availability="disabled")
        VoiceProfile.objects.filter(pk=shared.pk).update(is_shared=False, name="Private by now")

        names = [name for *_, name in self.read_voices(alices_client)]

        assert names[-3:] == ["Shared", "Switched off", "Deleted voice"]
        assert not {"Secret", "Private by now"} & set(names)
        assert names[0] == "Any voice"
        assert len(names) == len(set(names)) > 4

    def test_remembers_that_a_deleted_voice_was_asked_for(self, alices_client: Client) -> None:
        chosen = [each for each in self.read_voices(alices_client, "?voice=deleted") if each[1]]

        assert chosen == [("deleted", " selected", "Deleted voice")]


class TestConversationPage:
    def get(self, client: Client, conversation: Conversation, query: str = "") -> str:
        response = client.get(f"/history/{conversation.pk}/{query}", headers=ENGLISH)
        assert response.status_code == 200
        return str(response.content.decode())

    def follow(self, client: Client, conversation: Conversation, page: str, link: str) -> str:
        (href,) = re.findall(rf'id="{link}" rel="\w+" href="([^"]+)"', page)
        return self.get(client, conversation, href)

    def test_of_two_thousand_turns_is_small(
        self, alices_client: Client, alice: User, django_assert_max_num_queries: DjangoAssertNumQueries
    ) -> None:
        conversation = make_long_conversation(alice, 2000)

        with django_assert_max_num_queries(16):
            page = self.get(alices_client, conversation)

        assert len(page) < MAX_PAGE_BYTES
        assert page.count('class="player"') == TURNS_A_PAGE
        assert read_sentences(page) == list(range(1901, 2001))
        assert "2000 turns" in page

    def test_leads_to_what_was_said_before_and_back(
        self, alices_client: Client, long_conversation: Conversation
    ) -> None:
        newest = self.get(alices_client, long_conversation)
        middle = self.follow(alices_client, long_conversation, newest, "earlier")
        oldest = self.follow(alices_client, long_conversation, middle, "earlier")
        again = self.follow(alices_client, long_conversation, oldest, "later")

        shown = [read_sentences(page) for page in (newest, middle, oldest, again)]
        assert shown == [list(range(*each)) for each in ((151, 251), (51, 151), (1, 51), (51, 151))]
        assert ('id="earlier"' in oldest, 'id="later"' in newest) == (False, False)

    def test_of_a_short_conversation_has_no_further_pages(self, alices_client: Client, alice: User) -> None:
        page = self.get(alices_client, make_long_conversation(alice, TURNS_A_PAGE))

        assert len(read_sentences(page)) == TURNS_A_PAGE
        assert 'id="earlier"' not in page

    @pytest.mark.parametrize(
        "query", ["?before=x", "?before=0", "?after=999999999", "?turn=6292de9e-b55e-4a77-ab46-dd4378394838", "?turn=x"]
    )
    def test_shows_the_newest_when_there_is_nothing_else(
        self, alices_client: Client, long_conversation: Conversation, query: str
    ) -> None:
        assert read_sentences(self.get(alices_client, long_conversation, query))[-1] == 250

    def test_is_opened_where_it_says_what_was_looked_for(
        self, alices_client: Client, alice: User, long_conversation: Conversation
    ) -> None:
        Turn.objects.filter(conversation=long_conversation).delete()
        turn = factories.create_turn(long_conversation, text="Zanzibar")
        for number in range(1, 151):
            factories.create_turn(long_conversation, text=f"Sentence {number}.")
        found = alices_client.get("/history/?q=zanzibar").content.decode()
        (href,) = re.findall(r'class="entry" href="[^"?]*([^"]+)"', found)

        page = self.get(alices_client, long_conversation, href.replace("&amp;", "&").partition("#")[0])

        assert href.endswith(f"#t-{turn.pk}")
        assert f'id="t-{turn.pk}"' in page
        assert "<mark>Zanzibar</mark>" in page

    def test_says_the_day_where_it_is_another(self, alices_client: Client, alice: User) -> None:
        conversation = make_long_conversation(alice, 4)
        for sequence, day in ((1, 9), (2, 9), (3, 10), (4, 10)):
            moment = dt.datetime(2026, 3, day, 14, 3, sequence, tzinfo=timezone.get_default_timezone())
            Turn.objects.filter(conversation=conversation, sequence=sequence).update(created_at=moment)

        page = self.get(alices_client, conversation)

        times = re.findall(r'<time datetime="([^"]+)" title="([^"]+)">([^<]+)</time>', page)
        assert [shown for *_, shown in times] == [
            "March 9, 2026 14:03:01",
            "14:03:02",
            "March 10, 2026 14:03:03",
            "14:03:04",
        ]
        assert times[1][:2] == ("2026-03-09T14:03:02+08:00", "March 9, 2026 14:03:02")

    def test_says_which_voice_and_quality_spoke(self, alices_client: Client, alice: User) -> None:
        voice = factories.create_voice_profile(owner=alice, name="My voice")
        conversation = factories.create_conversation(alice)
        for quality in ("fast", "high_quality"):
            factories.create_turn(conversation, speaker="avatar", voice_profile_id=voice.pk, quality=quality)

        page = self.get(alices_client, conversation)

        assert re.findall(r"<span>My voice · ([^·<]+) · synthetic voice</span>", page) == ["fast", "high quality"]


class TestCallPage:
    def test_shows_the_last_turns_and_where_the_others_are(
        self, alices_client: Client, long_conversation: Conversation
    ) -> None:
        page = alices_client.get(f"/c/{long_conversation.pk}/", headers=ENGLISH).content.decode()

        assert page.count("data-turn-id=") == TURNS_A_PAGE
        assert f'href="/history/{long_conversation.pk}/"' in page

    def test_has_an_old_turn_that_is_to_be_answered_anew(
        self, alices_client: Client, long_conversation: Conversation
    ) -> None:
        turn = long_conversation.turns.get(sequence=7)
        page = alices_client.get(f"/c/{long_conversation.pk}/?answer={turn.pk}").content.decode()

        assert f'data-turn-id="{turn.pk}"' in page

    def test_of_a_short_conversation_shows_all(self, alices_client: Client, alice: User) -> None:
        conversation = make_long_conversation(alice, 3)
        page = alices_client.get(f"/c/{conversation.pk}/", headers=ENGLISH).content.decode()

        assert page.count("data-turn-id=") == 3
        assert f'href="/history/{conversation.pk}/"' not in page
