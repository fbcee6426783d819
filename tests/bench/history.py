"""
`make bench-history`: how quickly a long memory is listed and searched.

Fills a database of its own with a hundred thousand turns of one person, and half as many of others, and asks the API as
a page would, without a network in between. Prints p50 and p95 of each question, and the machine: p95 is to be below
200 ms.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.bench.conversation import machine

if TYPE_CHECKING:
    from django.contrib.auth.models import User

TURNS = 100_000
TURNS_A_CONVERSATION = 20
LIMIT_MS = 200
#: Said in every tenth turn, and in one of twenty thousand.
COMMON = "天氣"
RARE = "鳳梨酥"
ENGLISH = "weather"
_PHRASES = (
    "今天", "明天", "台北", "高雄", "我想", "請問", "可以", "幫我",
    "一下", "晚上", "吃飯", "咖啡", "喜歡", "工作", "學校", "電影",
    "音樂", "旅行", "車站", "時間", "朋友", "家裡", "早上", "問題",
    "東西", "地方", "比較", "覺得", "應該", "為什麼", "怎麼", "什麼",
    "多少", "謝謝", "沒有", "知道", "the", "please", "music", "coffee",
    "tomorrow", "about", "station", "because", "python", "voice", "answer", "time",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=TURNS, help="of the one person; of others, half as many")
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"AVATAR_ENV_FILE": "", "AVATAR_DATA_DIR": folder, "AVATAR_LOG_LEVEL": "WARNING"}
        os.environ["DJANGO_SETTINGS_MODULE"] = "avatar_site.settings.prod"
        import django

        django.setup()
        return measure(turns=options.turns, repeats=options.repeats)


def measure(*, turns: int, repeats: int) -> int:
    from django.contrib.auth.models import User
    from django.core.management import call_command

    call_command("migrate", interactive=False, verbosity=0)
    alice = User.objects.create_user("alice")
    others = [User.objects.create_user(f"other{number}") for number in range(5)]
    began = time.monotonic()
    generator = random.Random(5)
    voice_id = fill(alice, turns, generator)
    for other in others:
        fill(other, turns // 2 // len(others), generator)
    print(f"{turns * 3 // 2} turns made in {time.monotonic() - began:.0f} s")
    return ask(alice, pages=turns // TURNS_A_CONVERSATION // 20, voice_id=voice_id, repeats=repeats)


def ask(user: User, *, pages: int, voice_id: uuid.UUID, repeats: int) -> int:
    from django.test import Client

    client = Client(headers={"host": "localhost"})
    client.force_login(user)
    questions = {
        "first page": "",
        "page in the middle": f"page={pages // 2}",
        "last page": f"page={pages}",
        "hundred a page": "page_size=100",
        "oldest first": "ordering=time",
        "of one month": "from=2026-03-01&to=2026-03-31",
        "of one voice": f"voice={voice_id}",
        "of deleted voices": "voice=deleted",
        f"common word ({COMMON})": f"q={COMMON}",
        f"rare word ({RARE})": f"q={RARE}",
        "two words": f"q={COMMON} 台北",
        f"English word ({ENGLISH})": f"q={ENGLISH}",
        "beginning of an English word (wea)": "q=wea",
        "one character (天)": "q=天",
        "word nobody said": "q=獨角獸",
    }
    is_slow = False
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}\n{'ms':36}{'found':>8}{'p50':>8}{'p95':>8}")
    for name, query in questions.items():
        times_ms = []
        for _ in range(repeats):
            asked_at = time.perf_counter()
            response = client.get(f"/api/conversations?{query}")
            times_ms.append((time.perf_counter() - asked_at) * 1000)
            if response.status_code != 200:
                raise RuntimeError(f"{query}: {response.status_code} {response.content!r}")
        p95 = statistics.quantiles(times_ms, n=20)[-1]
        is_slow |= p95 >= LIMIT_MS
        print(f"{name:36}{response.json()['count']:>8}{statistics.median(times_ms):8.1f}{p95:8.1f}")
    print(f"p95 below {LIMIT_MS} ms: {'no' if is_slow else 'yes'}")
    return int(is_slow)


def fill(owner: object, count: int, generator: random.Random) -> uuid.UUID:
    """Make conversations as calls do, but many rows at a time. Return a voice that some were spoken in."""
    from conversations.models import Conversation, Turn, TurnSearch
    from conversations.search import index_text
    from voices.models import VoiceProfile

    voices = list(VoiceProfile.objects.order_by("pk"))[:4]
    began_at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    step = dt.timedelta(days=320) / max(1, count // TURNS_A_CONVERSATION)
    for first in range(0, count // TURNS_A_CONVERSATION, 100):
        numbers = range(first, min(first + 100, count // TURNS_A_CONVERSATION))
        conversations = [
            Conversation(owner=owner, title=say(generator)[:40], last_turn_at=began_at + step * (number + 0.5))
            for number in numbers
        ]
        Conversation.objects.bulk_create(conversations)
        for conversation, number in zip(conversations, numbers, strict=True):
            conversation.created_at = began_at + step * number
        Conversation.objects.bulk_update(conversations, ["created_at"])
        turns = [turn for each in conversations for turn in make_turns(each, generator, voices)]
        Turn.objects.bulk_create(turns)
        TurnSearch.objects.bulk_create(
            TurnSearch(turn=turn, conversation=turn.conversation, owner_id=owner.pk, text=index_text(turn.text))  # type: ignore[attr-defined]
            for turn in turns
        )
    return voices[0].pk


def make_turns(conversation: object, generator: random.Random, voices: list[object]) -> Iterator[object]:
    from conversations.models import Turn

    voice = generator.choice(voices)
    for sequence in range(1, TURNS_A_CONVERSATION + 1):
        is_avatar = sequence % 2 == 0
        yield Turn(
            conversation=conversation,
            sequence=sequence,
            speaker="avatar" if is_avatar else "user",
            text=say(generator),
            language="zh",
            audio=f"conversations/1/{uuid.uuid4()}.ogg",
            audio_duration_ms=3000,
            audio_bytes=12_000,
            voice_profile=voice if is_avatar else None,
            voice_name=voice.name if is_avatar else "",  # type: ignore[attr-defined]
        )


def say(generator: random.Random) -> str:
    words = generator.choices(_PHRASES, k=generator.randint(6, 24))
    if generator.random() < 0.1:
        words.insert(generator.randrange(len(words)), COMMON)
    if generator.random() < 0.05:
        words.insert(generator.randrange(len(words)), ENGLISH)
    if generator.random() < 1 / 20_000:
        words.append(RARE)
    return "".join(f" {word} " if word.isascii() else word for word in words).strip() + "。"


if __name__ == "__main__":
    sys.exit(main())
