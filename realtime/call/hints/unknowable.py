"""
Hints for questions that a language model cannot answer: today's weather, news, prices, telephone calls, doses. Pure.

A small model answers such questions with made-up figures, whatever the examples say. A hint after the question, like
the result after a sum, makes it say so. It does a larger model no harm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CURRENCY = r"(?:美金|美元|日幣|日圓|歐元|人民幣|港幣|韓元|英鎊|台幣)"
_NOW = r"(?:今天|今晚|明天|後天|現在|目前|最近|最新|這週|這個?週末|下週)"


@dataclass(frozen=True, slots=True)
class _Limit:
    pattern: re.Pattern[str]
    hint_zh: str
    hint_en: str


def _limit(pattern: str, hint_zh: str, hint_en: str) -> _Limit:
    return _Limit(re.compile(pattern, re.IGNORECASE), hint_zh, hint_en)


_LIMITS = (
    _limit(
        rf"{_NOW}.{{0,6}}(?:天氣|下雨|氣溫|颱風|會不會熱|會不會冷)|(?:天氣|氣溫).{{0,4}}(?:怎麼樣|如何|好嗎|幾度)"
        r"|\bweather (?:today|tomorrow|like|now)|\bis it (?:raining|going to rain)|\bwill it rain",
        "你查不到天氣，請對方看氣象預報",
        "you cannot look up the weather; say so, and suggest the forecast",
    ),
    _limit(
        rf"{_NOW}.{{0,6}}新聞|新聞.{{0,4}}(?:有什麼|有哪些)|\b(?:latest|today'?s) news|\bwhat'?s (?:in )?the news",
        "你查不到新聞，請對方看新聞網站",
        "you cannot look up the news; say so",
    ),
    _limit(
        rf"股價|匯率|油價|金價|{_CURRENCY}.{{0,8}}(?:換|等於|是|兌).{{0,6}}(?:{_CURRENCY}|多少)"
        r"|\bstock price|\bexchange rate|\b(?:dollars?|euros?|yen)\b.{0,12}\bin (?:nt|taiwan|dollars?|euros?|yen)",
        "你查不到價格和匯率，請對方看銀行網站",
        "you cannot look up prices or rates; say so, and name no figure",
    ),
    _limit(
        r"(?:幫我|替我|幫忙).{0,4}(?:打電話|打給|傳訊息|傳簡訊|寄信|寄電子郵件|訂位|訂票|訂房|叫車|叫計程車|點餐|買票|開燈|關燈|設鬧鐘|放音樂)"
        r"|\b(?:call|text|email) (?:my|him|her|them)\b|\b(?:book|order) (?:me )?a (?:table|taxi|ticket|room)",
        "你沒辦法替人做這件事，只能說話",
        "you cannot do that for people, you can only talk; say so",
    ),
    _limit(
        r"(?:吃|服用?).{0,6}(?:顆|粒|錠|倍).{0,10}(?:嗎|多少|幾|可以)|可以.{0,6}(?:吃|服用?).{0,4}(?:顆|粒|錠)"
        r"|(?:藥|普拿疼|止痛).{0,8}(?:劑量|幾顆|多少顆|加倍)"
        r"|\bhow many (?:pills|tablets)|\b(?:double|increase) the dose",
        "不要建議藥量，請對方照藥袋上的說明，並且問醫生或藥師",
        "recommend no dose; refer to the label and to a doctor or pharmacist",
    ),
)


def find_hint(question: str, *, is_chinese: bool) -> str | None:
    """Return the hint to append to a question that the model cannot know the answer to. None: it may know."""
    for limit in _LIMITS:
        if limit.pattern.search(question):
            return limit.hint_zh if is_chinese else limit.hint_en
    return None
