"""What is found by what, on every database."""

from django.contrib.auth.models import User

from conversations.deletion import delete_conversations
from conversations.models import Conversation
from conversations.services import correct_turn
from tests import factories

SAID = (
    "今天台北的天氣怎麼樣？",
    "Tomorrow's WEATHER will be sunny in Taipei.",
    "我用Python寫程式，版本是3.14。",
    "𠮷野家的牛丼 café",
)
#: Query, and which of SAID it finds.
FOUND = (
    ("天氣", {0}),
    ("天", {0}),
    ("北的天", {0}),
    ("氣天", set()),
    ("天氣 台北", {0}),
    ("天氣 python", set()),
    ("weather", {1}),
    ("Weath", {1}),
    ("eather", set()),
    ("tomorrow's", {1}),
    ("用Pyth", {2}),
    ("ＰＹＴＨＯＮ", {2}),
    ("3.14", {2}),
    ("𠮷野", {3}),
    ("cafe", {3}),
    ("天氣？", {0}),
    ('"天氣"', {0}),
    ("「天氣」", {0}),
    ("NOT 天氣", set()),
    ("天氣 OR python", set()),
    ("天氣*", {0}),
    ("-天氣", {0}),
    ("text:天氣", set()),
    ("(", set()),
    ("？", set()),
    ("'; DROP TABLE conversations_turn; --", set()),
    ("天氣 & ! | <->", {0}),
    ("\x00天氣", {0}),
    ("%", set()),
)


def check_search(alice: User, bob: User) -> None:
    """Say everything, and look for it; then what corrections and deletions do to it."""
    conversations = []
    for text in SAID:
        conversation = factories.create_conversation(alice, title="—")
        factories.create_turn(conversation, text=text)
        conversations.append(conversation)
    factories.create_turn(factories.create_conversation(bob, title="—"), text=" ".join(SAID))

    for query, expected in FOUND:
        found = Conversation.objects.owned_by(alice).matching(query, owner=alice)
        numbers = {conversations.index(conversation) for conversation in found}
        assert numbers == expected, query

    def count(query: str) -> int:
        return Conversation.objects.owned_by(alice).matching(query, owner=alice).count()

    turn = conversations[0].turns.get()
    correct_turn(conversation_id=conversations[0].pk, turn_id=turn.pk, text="今天花蓮的地震", supersede=False)
    assert (count("天氣"), count("地震")) == (0, 1)
    delete_conversations(conversations=Conversation.objects.filter(pk=conversations[0].pk))
    assert count("地震") == 0
