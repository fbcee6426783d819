"""
Composes the prompt: examples, place and time, the conversation, facts. Pure: imports no Django, no engine.

Ordered by how seldom it changes, for the engine keeps what it has read: the system prompt and the examples are the same
in all calls (`Message.is_shared`), place and time change each hour, a fact stands after the words it is about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from inference.interfaces import Message
from realtime.call.hints.calculator import Fact, compute_fact
from realtime.call.hints.dates import compute_date_fact, say_moment
from realtime.call.hints.numerals import say_in_chinese
from realtime.call.hints.unknowable import find_hint

Language = Literal["zh", "en"]

ANSWER_IN_ENGLISH = "(Answer in English.) "
ANSWER_IN_CHINESE = "（請用中文回答。）"

#: Short: it is read before the first call, at some thirty tokens a second on two cores.
SYSTEM_PROMPT = (
    "你是 AVATAR，台灣的語音助理，正在和人聊天。用台灣的繁體中文回答；對方說英文就用英文。"
    "你的話會被唸出來：簡短自然，一到兩句，第一句要短，不用條列、Markdown、表情符號或網址。"
    "題目後面有計算結果或提示時，照著說。"
)
#: What small talk in Taiwan sounds like, what cannot be known, and what a fact after a question is for.
EXAMPLES: tuple[tuple[str, str], ...] = (
    ("嗨，你好，你是誰？", "你好！我是 AVATAR，可以陪你聊天、回答問題，也可以幫你算數。"),
    ("今天天氣怎麼樣？\n（提示：你查不到天氣，請對方看氣象預報）",
     "我查不到即時的天氣，出門前看一下氣象預報比較準喔。"),
    (ANSWER_IN_ENGLISH + "What can I have for breakfast?", "How about a rice ball and warm soy milk? It's quick."),
    (ANSWER_IN_CHINESE + "我頭有點暈，怎麼辦？", "先坐下來休息，喝點溫開水。如果一直沒好，要去看醫生。"),
    ("一個便當九十五元，兩個多少錢？\n（計算結果：95 × 2 = 190 元，一百九十）", "兩個便當一共一百九十元。"),
    ("藥可以多吃幾顆嗎？", "不要自己加藥量，照藥袋上寫的吃，有疑問就問醫生或藥師。"),
    ("現在金價多少？\n（提示：你查不到價格和匯率，請對方看銀行網站）", "我查不到現在的價格，可以看銀行的網站喔。"),
    ("幫我打電話叫計程車。", "我沒辦法打電話或上網，要請你自己打喔。"),
    ("「謝謝」的英文怎麼說？", "英文是 thank you。"),
    ("我今天被老闆罵了。", "辛苦你了，被罵一定很難過。要不要說說發生了什麼事？"),
    ("推薦一個可以散步的地方。", "可以去大安森林公園，樹很多，走起來很舒服。"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scene:
    """Who the avatar is, where, and since when. Without a clock, the model is told neither place nor time."""

    system_prompt: str = ""
    examples: tuple[tuple[str, str], ...] = ()
    place: str = ""
    read_time: Callable[[], datetime] | None = None


def compose_shared(scene: Scene) -> list[Message]:
    """Return what every conversation begins with, for an engine to prefill before the first call."""
    if not scene.system_prompt:
        return []
    shared = [Message("system", scene.system_prompt, is_shared=True)]
    for asked, answered in scene.examples:
        shared += [Message("user", asked, is_shared=True), Message("assistant", answered, is_shared=True)]
    return shared


def compose(scene: Scene, history: Sequence[Message], user_text: str = "") -> list[Message]:
    """Return what the model is to read: what all calls share, place and time, the conversation, the user's words."""
    now = scene.read_time() if scene.read_time else None
    messages = compose_shared(scene)
    if now is not None:
        messages.append(Message("system", say_moment(now, scene.place)))
    said = [*history, Message("user", user_text)] if user_text else list(history)
    named = name_languages(add_facts(said, now), is_expected_chinese=is_chinese(scene.system_prompt))
    for message in named:
        if messages and messages[-1].role == message.role == "user":
            # A turn that was never answered, because the user went on.
            messages[-1] = Message("user", f"{messages[-1].content}\n{message.content}")
        else:
            messages.append(message)
    return messages


def add_facts(messages: Sequence[Message], now: datetime | None) -> list[Message]:
    """
    Append results to questions that ask for them, and hints to those that the model cannot answer.

    Sums stay, so that the prefix cache stays valid. The clock is asked for the last question only: what was
    right then is wrong now.
    """
    added: list[Message] = []
    earlier = ""
    for place, message in enumerate(messages):
        if message.role != "user":
            added.append(message)
            continue
        fact = compute_fact(message.content, earlier=earlier)
        if fact is None and now is not None and place == len(messages) - 1:
            fact = compute_date_fact(message.content, now)
        earlier = message.content
        if fact is not None:
            note = _say_fact(fact, message.content)
        elif hint := find_hint(message.content, is_chinese=is_chinese(message.content)):
            note = f"（提示：{hint}）" if is_chinese(message.content) else f"(Note: {hint}.)"
        else:
            added.append(message)
            continue
        added.append(Message("user", f"{message.content}\n{note}"))
    return added


def _say_fact(fact: Fact, question: str) -> str:
    """Digits, for they are exact, and the words for them: a small model reads 960 out as 九十六."""
    if not is_chinese(question):
        return f"(Result: {fact.text})"
    spoken = None if fact.value is None else say_in_chinese(fact.value)
    return f"（計算結果：{fact.text}，{spoken}）" if spoken else f"（計算結果：{fact.text}）"


def name_languages(messages: Sequence[Message], *, is_expected_chinese: bool) -> list[Message]:
    """
    Say before a request which language it is to be answered in, when what came before would not do.

    A small model that has read Chinese so far answers in Chinese, whatever the prompt said long ago, and the other way
    round; its own last answer counts as well as the last question. Before the request, not after it: the words are then
    read ahead while the person still speaks.
    """
    if not is_expected_chinese:
        return list(messages)
    named: list[Message] = []
    for message in messages:
        content = message.content
        language = detect_language(content)
        if message.role == "user" and language == "en":
            content = ANSWER_IN_ENGLISH + content
            is_expected_chinese = False
        elif message.role == "user" and language == "zh" and not is_expected_chinese:
            content = ANSWER_IN_CHINESE + content
            is_expected_chinese = True
        elif message.role == "assistant" and language == "en":
            is_expected_chinese = False
        named.append(Message(message.role, content))
    return named


# --- which language ---

_ENGLISH_WORD = re.compile(r"[A-Za-z]{2,}")
_HAN = re.compile(r"[\u3400-\u9fff]")
#: Asks for words of another language, or about one.
_ABOUT_LANGUAGE = re.compile(
    r"翻譯|翻成|譯成|英文|英語|中文|國語|日文|日語|怎麼說|怎麼唸|怎麼念|單字|什麼意思"
    r"|\btranslat|\bmandarin\b|\bchinese\b|\bin english\b|\bhow do (?:you|i) say\b",
    re.IGNORECASE,
)


def is_chinese(text: str) -> bool:
    return _HAN.search(text) is not None


def detect_language(text: str) -> Language | None:
    """Return the language of a text: Chinese as soon as there is a Han character. None: no words, such as a number."""
    if is_chinese(text):
        return "zh"
    return "en" if _ENGLISH_WORD.search(text) else None


def choose_reply_language(user_text: str) -> Language | None:
    """Return the language a reply must be in. None: either may be right, as for a translation."""
    return None if _ABOUT_LANGUAGE.search(user_text) else detect_language(user_text)


#: So many words of the other language are no name any more.
_MAX_FOREIGN_WORDS = 4
_CLAUSE_END = re.compile(r"[A-Za-z][,.!?;:\n]|[。！？，；：]")


def judge_beginning(beginning: str, wanted: Language | None) -> bool | None:
    """
    Say whether a reply that begins so is in the wanted language. None: it is too early to say.

    A name of the other language settles nothing: a Chinese reply may begin with "OpenAI", an English one with 台北.
    """
    if wanted is None:
        return True
    han, words = len(_HAN.findall(beginning)), len(_ENGLISH_WORD.findall(beginning))
    has_ended = _CLAUSE_END.search(beginning) is not None
    if wanted == "zh":
        if han:
            return True
        return False if words > _MAX_FOREIGN_WORDS or (has_ended and words > 1) else None
    if words > 1 or (words and not han):
        return True
    return False if han > _MAX_FOREIGN_WORDS or (has_ended and han > 1) else None


def ask_again(messages: Sequence[Message], wanted: Language) -> list[Message]:
    """Return `messages` with the language asked for again, after the last words, where it influences a model most."""
    *before, last = messages
    reminder = "（請用中文回答。）" if wanted == "zh" else "(Please answer in English only.)"
    return [*before, Message(last.role, f"{last.content}\n{reminder}")]
