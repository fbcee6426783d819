"""
Questions about the clock and the calendar, answered from a given moment. Pure: reads no clock itself.
"""

from __future__ import annotations

import re
from calendar import day_name, month_name
from datetime import datetime, timedelta

from realtime.call.hints.calculator import Fact, normalise, read_duration, say_time
from realtime.call.hints.numerals import NUMBER, parse_number

_WEEKDAYS = "一二三四五六日"
#: Years of the Republic of China, as forms in Taiwan want them.
REPUBLIC_YEARS_AFTER = 1911

_DAYS = {"大前天": -3, "前天": -2, "昨天": -1, "今天": 0, "明天": 1, "後天": 2, "大後天": 3}
_DAY = re.compile(r"大前天|前天|昨天|今天|明天|大後天|後天")
_DAYS_ENGLISH = {"yesterday": -1, "today": 0, "tomorrow": 1}
_IN_DAYS = re.compile(
    rf"(?P<more>再過|過)?\s*(?P<count>{NUMBER})\s*(?P<unit>天|個?星期|個?禮拜|週)\s*(?P<way>[之以]?[後前])?"
)
_ASKS_DATE = re.compile(r"幾月幾[號日]|幾[號日]|日期(?:是|幾)|星期幾|禮拜幾|週幾|拜幾")
#: Asks for a personal or particular day, which is not in the calendar.
_OF_SOMETHING = re.compile(
    r"生日|節|開始|結束|開學|放假|考試|過年|比賽|出發|截止|見面|有空|初[一二三四五六七八九十]|農曆"
)
_TIME = re.compile(r"^[^,]{0,6}?(?:現在|目前|這時候)(?:是)?(?:幾點|什麼時間|什麼時候)|^(?:請問)?(?:現在)?幾點了")
_LATER = re.compile(
    r"^(?:請問|那|從現在)?,?(?:再過|過)?[^,]{0,10}?(?:小時|分鐘|鐘頭)(?:之後|以後|後)?,?(?:是|會是|就是)?幾點"
)
_YEAR = re.compile(r"今年是?(?:西元|民國)?(?:哪一?年|幾年|多少年)|今年是?(?:西元|民國)")
_TIME_ENGLISH = re.compile(r"\bwhat(?:'s| is)? (?:the )?time (?:is it|now)|\bwhat(?:'s| is) the time\b", re.IGNORECASE)
_DATE_ENGLISH = re.compile(
    r"\bwhat(?:'s| is)? (?:(?:the )?(?:date|day)|day of the week)(?: of the week)?(?: is| is it)?\s*"
    r"(?P<day>today|tomorrow|it|yesterday|now)?\s*\??$"
    r"|\bwhat(?:'s| is) (?P<day2>today|tomorrow)'?s date",
    re.IGNORECASE,
)


def compute_date_fact(text: str, now: datetime) -> Fact | None:
    """Say the time, date, weekday or year that is asked for. None: none is."""
    asked = normalise(text)
    if len(asked) > 40:
        return None
    if _TIME.search(asked):
        return Fact(f"現在是{_say_time(now)}")
    if _LATER.search(asked) and (minutes := read_duration(asked)):
        return Fact(f"現在是{_say_time(now)}，到時候是{_say_time(now + timedelta(minutes=minutes))}")
    if _YEAR.search(asked):
        return Fact(f"今年是西元 {now.year} 年，民國 {now.year - REPUBLIC_YEARS_AFTER} 年")
    if _ASKS_DATE.search(asked) and not _OF_SOMETHING.search(asked):
        return _compute_day(asked, now)
    if _TIME_ENGLISH.search(asked):
        return Fact(f"it is {now:%I:%M %p} now".replace(" 0", " "))
    if match := _DATE_ENGLISH.search(asked):
        name = (match["day"] or match["day2"] or "today").lower()
        offset = _DAYS_ENGLISH.get(name, 0)
        name = name if name in _DAYS_ENGLISH else "today"
        return Fact(f"{name} is {say_date_in_english(now + timedelta(days=offset))}")
    return None


def _compute_day(asked: str, now: datetime) -> Fact | None:
    if match := _DAY.search(asked):
        return Fact(f"{match[0]}是{say_date(now + timedelta(days=_DAYS[match[0]]))}")
    match = _IN_DAYS.search(asked)
    if match is None:
        # Which day a weekday or a festival falls on is not worked out; "幾號" alone means today.
        is_today = re.fullmatch(
            r"(?:請問|那|欸|現在|是|,)*(?:幾月幾[號日]|幾[號日]|星期幾|禮拜幾|週幾|日期)[\w?,]{0,2}", asked
        )
        return Fact(f"今天是{say_date(now)}") if is_today else None
    if not match["more"] and not match["way"]:
        return None
    count = parse_number(match["count"])
    if count is None or count.denominator != 1 or count > 3660:
        return None
    days = int(count) * (1 if match["unit"] == "天" else 7)
    is_before = match["way"] is not None and match["way"].endswith("前")
    then = now + timedelta(days=-days if is_before else days)
    words = f"{match['count']}{match['unit']}{'前' if is_before else '後'}"
    return Fact(f"今天是{say_date(now)}，{words}是{say_date(then)}")


def say_date(moment: datetime) -> str:
    return f"{moment.month}月{moment.day}日星期{_WEEKDAYS[moment.weekday()]}"


def say_date_in_english(moment: datetime) -> str:
    return f"{day_name[moment.weekday()]}, {month_name[moment.month]} {moment.day}, {moment.year}"


def say_moment(moment: datetime, place: str) -> str:
    """
    Say where and when a conversation is, to the hour.

    Whatever stands before a conversation is read again when it changes: an exact time would change each minute.
    """
    hour = say_time(moment.hour * 60, is_of_24_hours=True)
    where = f"地點是{place}，" if place else ""
    republic = moment.year - REPUBLIC_YEARS_AFTER
    return f"{where}今天是{moment.year}年（民國{republic}年）{say_date(moment)}，現在是{hour}多。"


def _say_time(moment: datetime) -> str:
    return say_time(moment.hour * 60 + moment.minute, is_of_24_hours=True)
