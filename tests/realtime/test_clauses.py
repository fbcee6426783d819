from __future__ import annotations

import random
from itertools import chain, repeat

import pytest

from realtime.clauses import CLAUSE_LENGTHS, Clause, ClauseCutter, measure, speak

CHINESE = "好的，今天台北的天氣很不錯，氣溫大約二十八度。建議你帶一把傘出門，因為下午可能會下雨。還有什麼想知道的嗎？"
ENGLISH = "Sure! The weather is nice today, about 28.5 degrees. Bring an umbrella, because it could rain at 3:30 p.m."
MARKDOWN = (
    "**你好**！請看 [這裡](https://example.com/a,b)，或 https://a.example/c?d=1 謝謝。\n\n# 標題\n"
    "- 第一點 😀👨‍👩‍👧\n- 第二點 `code`\n1. 其三\n```python\nprint('hi, there.')\n```\n結束了。"
)
NUMBERS = "圓周率大約是3.14159，一公里等於1,000公尺，現在是3:30，或者寫成3：30，打了95%折。"
LONG = "這是一個沒有任何標點符號的很長的句子用來測試第一個子句會不會被切開而且後面還有更多更多的文字要說給大家聽"
TEXTS = [
    CHINESE,
    ENGLISH,
    MARKDOWN,
    NUMBERS,
    LONG,
    "",
    "好。",
    "😀",
    "...",
    "\n\n",
    "```unclosed",
    "a" * 300,
    "[未完",
    "「好！」他說。",
]


def cut(text: str, pieces: list[str] | None = None) -> list[Clause]:
    cutter = ClauseCutter()
    clauses = [clause for piece in (pieces or [text]) for clause in cutter.feed(piece)]
    return clauses + cutter.flush()


def split_randomly(text: str, seed: int) -> list[str]:
    generator = random.Random(seed)
    pieces = []
    while text:
        size = generator.randint(1, 6)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


class TestClauseCutter:
    @pytest.mark.parametrize("text", TEXTS)
    def test_loses_nothing_that_is_displayed(self, text: str) -> None:
        assert "".join(clause.display for clause in cut(text)) == text

    @pytest.mark.parametrize("text", TEXTS)
    def test_cuts_the_same_however_the_reply_is_split(self, text: str) -> None:
        for seed in range(20):
            assert cut(text, split_randomly(text, seed)) == cut(text)

    def test_loses_nothing_of_nonsense(self) -> None:
        alphabet = "好的，。！3.5:,ab Z`*[]()<>#-\n😀\u200d：、http://x.y/ 第「」"
        for seed in range(300):
            generator = random.Random(seed)
            text = "".join(generator.choice(alphabet) for _ in range(120))

            clauses = cut(text, split_randomly(text, seed))

            assert "".join(clause.display for clause in clauses) == text
            for clause in clauses:
                assert len(clause.offsets) == len(clause.spoken)
                assert list(clause.offsets) == sorted(clause.offsets)
                assert clause.spoken == speak(clause.spoken).spoken or "-" in text or "#" in text

    @pytest.mark.parametrize("text", [CHINESE, ENGLISH, NUMBERS, LONG])
    def test_keeps_the_first_clause_short_the_second_less_so_and_the_others_bounded(self, text: str) -> None:
        clauses = cut(text)

        assert measure(clauses[0].spoken) >= CLAUSE_LENGTHS[0].least
        for clause, length in zip(clauses, chain(CLAUSE_LENGTHS, repeat(CLAUSE_LENGTHS[-1])), strict=False):
            assert measure(clause.spoken) <= length.most

    def test_gives_the_first_clause_at_its_punctuation(self) -> None:
        cutter = ClauseCutter()

        assert cutter.feed("今天台北天氣") == []
        assert [clause.spoken for clause in cutter.feed("，")] == ["今天台北天氣，"]

    def test_waits_for_punctuation_after_more_than_a_word_or_two(self) -> None:
        assert cut("好，今天天氣很好。明天也是。")[0].display == "好，今天天氣很好。"

    @pytest.mark.parametrize("whole", ["3.14159", "1,000", "3:30", "3：30", "95%"])
    def test_never_cuts_a_number(self, whole: str) -> None:
        for start in range(len(LONG)):
            text = LONG[:start] + whole + LONG[start:]
            assert any(whole in clause.display for clause in cut(text))

    @pytest.mark.parametrize("whole", ["internationalization", "don't", "e-mail", "https://a.example/b,c.d?e=1:2"])
    def test_never_cuts_a_word_or_an_address(self, whole: str) -> None:
        for start in range(len(LONG)):
            text = f"{LONG[:start]} {whole} {LONG[start:]}"
            assert any(whole in clause.display for clause in cut(text))

    def test_never_cuts_at_an_abbreviation(self) -> None:
        assert cut("I asked for Dr. Wang, he knows.")[0].display == "I asked for Dr. Wang, "

    def test_cuts_english_where_a_word_leans_on_nothing(self) -> None:
        first = cut("The quick brown fox jumps over the lazy dog and then it sleeps")[0]

        assert first.spoken == "The quick brown fox jumps"

    def test_starts_a_clause_anew_after_code(self) -> None:
        clauses = cut("程式在這裡\n```python\nprint('hi. there. now.')\n```\n就是這樣子。")

        assert [clause.spoken for clause in clauses] == ["程式在這裡", "就是這樣子。"]

    def test_says_nothing_of_a_code_block_that_never_ends(self) -> None:
        assert "".join(clause.spoken for clause in cut("```\nrm -rf, really.\n")) == ""


class TestSpeak:
    @pytest.mark.parametrize(
        ("display", "spoken"),
        [
            ("**很** *好* __的__ ~~事~~", "很 好 的 事"),
            ("# 標題", "標題"),
            ("- 一\n- 二", "一，二"),
            ("> 引用", "引用"),
            ("用 `print` 吧", "用 print 吧"),
            ("看[這裡](https://a.example/b)。", "看這裡。"),
            ("請到 https://a.example/b?c=d 看", "請到 看"),
            ("請到 https://a.example/b。謝謝", "請到。謝謝"),
            ("好😀的👍🏽！", "好的！"),
            ("第1️⃣名", "第1名"),
            ("<b>好</b><br/>的", "好的"),
            ("-5 度", "-5 度"),
            ("3.5 < 4", "3.5 < 4"),
            ("，、。", ""),
            ("---\n好", "好"),
            ("one\n\ntwo", "one, two"),
        ],
    )
    def test_leaves_out_what_is_not_said(self, display: str, spoken: str) -> None:
        assert speak(display).spoken == spoken


class TestHeard:
    def test_is_all_or_nothing_at_the_ends(self) -> None:
        clause = speak("**你好**嗎？")

        assert clause.read_heard(1.0) == "**你好**嗎？"
        assert clause.read_heard(0.0) == ""

    def test_is_in_proportion_between_them(self) -> None:
        assert speak("一二三四五六七八九十").read_heard(0.5) == "一二三四五"

    def test_ends_between_words(self) -> None:
        clause = speak("wonderful weather today")

        assert {clause.read_heard(n / 100) for n in range(101)} == {
            "",
            "wonderful",
            "wonderful weather",
            "wonderful weather today",
        }

    def test_counts_displayed_text(self) -> None:
        assert speak("**一二**三四").read_heard(0.75) == "**一二**三"

    def test_grows_with_the_fraction(self) -> None:
        for clause in cut(MARKDOWN) + cut(ENGLISH):
            lengths = [len(clause.read_heard(n / 50)) for n in range(51)]
            assert lengths == sorted(lengths)
            assert clause.display.startswith(clause.read_heard(0.4))
