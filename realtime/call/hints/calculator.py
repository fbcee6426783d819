"""
Finds sums, times and units in a question and calculates them. Pure: imports no Django, no engine; reads no clock.

A small language model cannot calculate. The result is appended to the question as a fact, and the model words the
answer. Only plain questions for a result are calculated; anything else is left to the model, because a wrong fact is
worse than none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from realtime.call.hints.numerals import NUMBER, format_chinese, format_number, parse_number

#: A question is not longer; a pattern is not looked for in an essay.
MAX_CHARACTERS = 120

_ASKS = r"多少|等於|幾|算|=|\?|\bwhat|\bhow (?:much|many)|\bcalculate"
#: Slang (8+9), songs and products are asked about in the words of a sum.
_IS_NO_SUM = re.compile(r"意思|方案|手機|是誰|什麼人|節目|電影|歌|品牌|戰爭|\b(?:mean|who)\b", re.IGNORECASE)
_MONEY = r"(?:元|塊錢|塊|圓)"
_CLASSIFIER = r"[杯個顆份張包盒瓶罐碗本枝支斤條件雙隻把台片盤串打次人束袋粒根]"


@dataclass(frozen=True, slots=True)
class Fact:
    """A result: how it is said to the model, and its value when a later question may go on from it."""

    text: str
    value: Fraction | None = None


def compute_fact(text: str, *, earlier: str = "") -> Fact | None:
    """
    Work out what is asked for. None: there is nothing to work out.

    `earlier` is what the same person asked before: "那五杯呢" refers to it.
    """
    asked = normalise(text)
    if len(asked) > MAX_CHARACTERS or _IS_NO_SUM.search(asked):
        return None
    for compute in _CALCULATIONS:
        if fact := compute(asked):
            return fact
    return _compute_follow_up(asked, normalise(earlier)) if earlier else None


def normalise(text: str) -> str:
    """Write full-width characters as ASCII, and a full stop as a comma, so that patterns need one form."""
    return unicodedata.normalize("NFKC", text).replace("。", ",").replace("、", ",").strip(" ,")


def _number(text: str) -> Fraction:
    value = parse_number(text)
    if value is None:
        raise _NotANumber
    return value


class _NotANumber(Exception):
    """A pattern matched words that are no number."""


def _skipping_words(compute: Callable[[str], Fact | None]) -> Callable[[str], Fact | None]:
    def compute_or_none(asked: str) -> Fact | None:
        try:
            return compute(asked)
        except _NotANumber:
            return None

    return compute_or_none


# --- sums ---

_OPERATORS = {
    "加上": "+", "加": "+", "+": "+", "plus": "+",
    "減去": "-", "減掉": "-", "減": "-", "-": "-", "minus": "-",
    "乘以": "×", "乘上": "×", "乘": "×", "×": "×", "*": "×", "x": "×", "times": "×", "multiplied by": "×",
    "除以": "÷", "÷": "÷", "/": "÷", "divided by": "÷",
}  # fmt: skip
_OPERATOR = "|".join(re.escape(each) for each in sorted(_OPERATORS, key=len, reverse=True))
_SUM = re.compile(rf"(?<![\d.:/-])({NUMBER})((?:\s*(?:{_OPERATOR})\s*{NUMBER})+)(?![\d:/-])", re.IGNORECASE)
_STEP = re.compile(rf"\s*({_OPERATOR})\s*({NUMBER})", re.IGNORECASE)


def _compute_sum(asked: str) -> Fact | None:
    match = _SUM.search(asked)
    if match is None:
        return None
    before, after = asked[: match.start()], asked[match.end() :]
    is_alone = not before.strip() and not after.strip(" =?")
    if not is_alone and not re.search(_ASKS, before + after, re.IGNORECASE):
        return None
    steps = [(_OPERATORS[operator.lower()], _number(number)) for operator, number in _STEP.findall(match[2])]
    is_written = not re.search(r"[加減乘除×÷+*=]|plus|minus|times|divided|multiplied", match[0] + after, re.IGNORECASE)
    if is_written and not is_alone:
        return None  # 3-5, 3/12: a range, a date
    if re.match(r"\s*(?:年|月|日|號|點|分|歲|樓)", after):
        return None
    first = _number(match[1])
    shown = format_number(first, decimals=6) + "".join(f" {op} {format_number(n, decimals=6)}" for op, n in steps)
    terms = [first]
    for operator, number in steps:
        if operator == "÷" and number == 0:
            return Fact(f"{shown}：不能除以零")
        match operator:
            case "+":
                terms.append(number)
            case "-":
                terms.append(-number)
            case "×":
                terms[-1] *= number
            case _:
                terms[-1] /= number
    total = sum(terms, Fraction(0))
    return Fact(f"{shown} = {format_number(total)}", total)


# --- money ---

_UNIT_PRICE = re.compile(
    rf"(?:一|1|每)\s*(?P<unit>{_CLASSIFIER})(?P<item>[^,?]{{0,10}}?)(?:要|是|賣|只要)?\s*(?P<price>{NUMBER})\s*{_MONEY}"
)
_UNIT_PRICE_ENGLISH = re.compile(
    rf"\b(?:one|an?|each)\s+(?P<item>[a-z][a-z ]{{0,24}}?)\s+(?:costs?|is)\s+(?:NT)?\$?\s*(?P<price>{NUMBER})"
    rf".*?how much (?:are|is|do|does|for|would|will)\s+(?P<count>{NUMBER})",
    re.IGNORECASE,
)
_HOW_MUCH = r"(?:多少|幾塊|幾元|總共|一共)"


def _compute_purchase(asked: str) -> Fact | None:
    if match := _UNIT_PRICE_ENGLISH.search(asked):
        return _multiply(_number(match["price"]), _number(match["count"]), "")
    price = _UNIT_PRICE.search(asked)
    if price is None or re.search(r"剩|找|折|%|百分之", asked):
        return None
    rest = asked[: price.start()] + "," + asked[price.end() :]
    count = re.search(rf"({NUMBER})\s*{price['unit']}", rest)
    if count is None or not re.search(_HOW_MUCH, rest):
        return None
    return _multiply(_number(price["price"]), _number(count[1]), " 元")


def _multiply(price: Fraction, count: Fraction, unit: str) -> Fact:
    total = price * count
    return Fact(f"{format_number(price)} × {format_number(count)} = {format_number(total)}{unit}", total)


_HAD = re.compile(rf"(?:有|付|給|拿|帶)[^,\d]{{0,4}}?({NUMBER})\s*{_MONEY}")
_SPENT = re.compile(rf"(?:({NUMBER})\s*{_CLASSIFIER}[^,\d]{{0,6}}?)?({NUMBER})\s*{_MONEY}")


def _compute_change(asked: str) -> Fact | None:
    had = _HAD.search(asked)
    if had is None or not re.search(r"(?:剩|找)[^,]{0,3}(?:多少|幾)", asked):
        return None
    spent = list(_SPENT.finditer(asked[: had.start()] + "," + asked[had.end() :]))
    if len(spent) != 1:
        return None
    cost = _number(spent[0][2]) * (_number(spent[0][1]) if spent[0][1] else 1)
    return _subtract_from(_number(had[1]), cost)


def _subtract_from(had: Fraction, cost: Fraction) -> Fact:
    left = had - cost
    return Fact(f"{format_number(had)} - {format_number(cost)} = {format_number(left)} 元", left)


_DISCOUNT = re.compile(r"(?:打|有)\s*(?P<cut>對|[一二三四五六七八九]{1,2}|[1-9]{1,2}|[1-9]\.[1-9])\s*折")
_PRICE = re.compile(rf"({NUMBER})\s*{_MONEY}")
_OFF_ENGLISH = re.compile(
    rf"({NUMBER})\s*(?:%|percent)\s+(?:off|discount)(?:\s+(?:of|on|from))?[^\d]*({NUMBER})"
    rf"|({NUMBER})\s*(?:dollars?)?\s+(?:with|at|after)\s+(?:an?\s+)?({NUMBER})\s*(?:%|percent)\s+(?:off|discount)",
    re.IGNORECASE,
)


def _compute_discount(asked: str) -> Fact | None:
    if match := _OFF_ENGLISH.search(asked):
        cut = _number(match[1] or match[4])
        price = _number(match[2] or match[3])
        total = price * (100 - cut) / 100
        return Fact(f"{format_number(price)} with {format_number(cut)}% off = {format_number(total)}", total)
    cut_text, prices = _DISCOUNT.search(asked), _PRICE.findall(asked)
    if cut_text is None or len(prices) != 1 or not re.search(_ASKS, asked):
        return None
    cut_off = cut_text["cut"]
    if cut_off == "對":
        share = Fraction(1, 2)
    else:
        value = _number(cut_off)
        share = value / (100 if value >= 10 else 10)
    price = _number(prices[0])
    total = price * share
    return Fact(f"{format_number(price)} 元打{cut_off}折 = {format_number(total)} 元", total)


_PERCENT = re.compile(
    rf"(?P<of>{NUMBER})\s*{_MONEY}?\s*的\s*(?:百分之\s*(?P<p1>{NUMBER})|(?P<p2>{NUMBER})\s*%)"
    rf"|(?:百分之\s*(?P<p3>{NUMBER})|(?P<p4>{NUMBER})\s*(?:%|percent))\s*(?:的|of)\s*(?P<of2>{NUMBER})",
    re.IGNORECASE,
)


def _compute_percentage(asked: str) -> Fact | None:
    match = _PERCENT.search(asked)
    if match is None or not re.search(_ASKS, asked, re.IGNORECASE):
        return None
    percent = _number(match["p1"] or match["p2"] or match["p3"] or match["p4"])
    of = _number(match["of"] or match["of2"])
    total = of * percent / 100
    return Fact(f"{format_number(of)} × {format_number(percent)}% = {format_number(total)}", total)


# --- how long a way takes ---

#: Kilometres an hour, as people go and not as they race.
WALKING_KMH, CYCLING_KMH, RUNNING_KMH = 5, 15, 9
_WAYS = (
    (re.compile(r"騎(?:腳踏車|單車|自行車)|ubike|\bcycl|\bbike\b", re.IGNORECASE), "騎腳踏車", "cycling", CYCLING_KMH),
    (re.compile(r"跑步|慢跑|\brun\b|\bjog", re.IGNORECASE), "跑步", "running", RUNNING_KMH),
    (re.compile(r"走|步行|散步|\bwalk", re.IGNORECASE), "走路", "walking", WALKING_KMH),
)
_DISTANCE = re.compile(
    rf"({NUMBER})\s*(公里|公尺|米|kilomet(?:er|re)s?\b|km\b|met(?:er|re)s?\b|miles?\b)", re.IGNORECASE
)


def _compute_travel_time(asked: str) -> Fact | None:
    distances = list(_DISTANCE.finditer(asked))
    if len(distances) != 1 or not re.search(r"多久|多長時間|幾分鐘|幾個?小時|how (?:long|many minutes)", asked, re.I):
        return None
    value, unit = _number(distances[0][1]), distances[0][2].lower()
    if unit.startswith("mile"):
        kilometres = value * Fraction("1.609344")
    else:
        kilometres = value if unit.startswith(("公里", "kilo", "km")) else value / 1000
    for pattern, chinese, english, speed in _WAYS:
        if pattern.search(asked):
            minutes = max(1, round(kilometres / speed * 60))
            if _is_chinese(asked):
                return Fact(f"{chinese}每小時約 {speed} 公里，{format_number(value)} {unit}約 {_say_minutes(minutes)}")
            return Fact(f"{english} at {speed} km/h, {format_number(value)} {unit} takes about {minutes} minutes")
    return None


def _say_minutes(minutes: int) -> str:
    """In words: a small model turns the digits of a duration into English ones."""
    hours, rest = divmod(minutes, 60)
    said = f"{'兩' if hours == 2 else format_chinese(hours)}小時" if hours else ""
    return said + (f"{format_chinese(rest)}分鐘" if rest or not hours else "")


# --- times of the day ---

_TIME = (
    r"(?:(?P<part{0}>凌晨|早上|上午|中午|下午|傍晚|晚上)\s*)?"
    r"(?:(?P<hour{0}>\d{{1,2}}|[一二兩三四五六七八九十]{{1,3}})點(?P<half{0}>半)?"
    r"(?:(?P<minute{0}>\d{{1,2}}|[零一二三四五六七八九十]{{1,4}})分?(?!鐘))?"
    r"|(?P<hour{0}b>\d{{1,2}}):(?P<minute{0}b>\d\d))"
)
_START, _END = re.compile(_TIME.format("1")), re.compile(_TIME.format("2"))
_HOURS = re.compile(
    rf"(?P<hours>{NUMBER})\s*個?(?P<and_half>半)?\s*(?:小時|鐘頭|hours?)|(?P<half>半)個?\s*(?:小時|鐘頭)"
)
_MINUTES = re.compile(rf"(?P<minutes>{NUMBER})\s*(?:分鐘|分|minutes?)", re.IGNORECASE)
_AFTERNOON = ("下午", "傍晚", "晚上")


def _compute_time(asked: str) -> Fact | None:
    start = _START.search(asked)
    if start is None:
        return None
    rest = asked[: start.start()] + "," + asked[start.end() :]
    end = _END.search(rest)
    if end is not None:
        if not re.search(r"多久|幾個?(?:半)?(?:小時|鐘頭)|幾分鐘|多長", asked):
            return None
        first, has_part = _read_time(start, "1")
        last, _ = _read_time(end, "2")
        if first is None or last is None:
            return None
        minutes = last - first
        if minutes < 0:
            minutes += 12 * 60 if not has_part and minutes + 12 * 60 > 0 and not end["part2"] else 24 * 60
        return Fact(f"從 {start[0].strip()} 到 {end[0].strip()} 是 {_say_minutes(minutes)}")
    is_sum = re.match(r"\s*[加減+-]", asked[start.end() :]) is not None
    if not is_sum and not re.search(r"幾點|什麼時候|等於|=|多少|\?$", rest):
        return None
    duration = read_duration(rest)
    if not duration:
        return None
    is_back = bool(re.search(r"[之以]?前|減|往前", rest))
    if not is_back and not re.search(r"後|加|再過|過|\+|要[^,]{0,8}幾點|花", rest):
        return None
    first, has_part = _read_time(start, "1")
    if first is None:
        return None
    then = first - duration if is_back else first + duration
    sign = "減" if is_back else "加"
    return Fact(f"{start[0].strip()}{sign} {_say_minutes(duration)}是{say_time(then, is_of_24_hours=has_part)}")


def read_duration(text: str) -> int:
    """Return the minutes of a duration in `text`, 0 when there is none."""
    minutes = Fraction(0)
    if match := _HOURS.search(text):
        minutes += 30 if match["half"] else 60 * _number(match["hours"]) + (30 if match["and_half"] else 0)
    if match := _MINUTES.search(text):
        minutes += _number(match["minutes"])
    return round(minutes)


def _read_time(match: re.Match[str], group: str) -> tuple[int | None, bool]:
    """Return minutes since midnight, and whether the hour is one of 24."""
    groups = match.groupdict()
    hour_text = groups[f"hour{group}"] or groups[f"hour{group}b"]
    minute_text = groups[f"minute{group}"] or groups[f"minute{group}b"]
    hour = int(_number(hour_text))
    minute = int(_number(minute_text)) if minute_text else 30 if groups[f"half{group}"] else 0
    if hour > 24 or minute > 59:
        return None, False
    part = groups[f"part{group}"]
    if part in _AFTERNOON and hour < 12:
        hour += 12
    if part == "凌晨" and hour == 12:
        hour = 0
    return hour * 60 + minute, part is not None or hour > 12


def say_time(minutes: int, *, is_of_24_hours: bool) -> str:
    """Say a time as people in Taiwan do: 下午三點四十分, or without the part of the day when that is not known."""
    hour, minute = divmod(minutes % (24 * 60), 60)
    part = ""
    if is_of_24_hours:
        names = ((5, "凌晨"), (11, "早上"), (13, "中午"), (18, "下午"), (24, "晚上"))
        part = next(name for end, name in names if hour < end)
    spoken_hour = hour % 12 or 12
    said_hour = "兩" if spoken_hour == 2 else format_chinese(spoken_hour)
    said_minute = "" if not minute else f"{'零' if minute < 10 else ''}{format_chinese(minute)}分"
    return f"{part}{said_hour}點{said_minute}"


# --- units ---

#: Dimension and size, in metres, grams, square metres, litres. Taiwanese measures by the law of weights and measures.
_UNITS: dict[str, tuple[str, Fraction]] = {}


def _add_units(dimension: str, **sizes: str) -> None:
    for names, size in sizes.items():
        for name in names.split("_"):
            _UNITS[name] = (dimension, Fraction(size))


_add_units(
    "length", 公里_km_kilometer_kilometers_kilometre_kilometres="1000", 公尺_米_meter_meters_metre_metres="1",
    公分_cm_centimeter_centimeters="0.01", 公釐_毫米_mm="0.001", 英里_英哩_mile_miles="1609.344",
    英尺_英呎_foot_feet="0.3048", 英寸_英吋_吋_inch_inches="0.0254", 碼_yard_yards="0.9144", 台尺="0.30303",
)  # fmt: skip
_add_units(
    "mass", 公斤_kg_kilogram_kilograms="1000", 公克_克_gram_grams="1", 台斤="600", 台兩="37.5", 公噸_噸="1000000",
    磅_pound_pounds_lbs="453.59237", 盎司_ounce_ounces="28.349523",
)  # fmt: skip
_add_units(
    "area",
    坪="3.305785",
    平方公尺_平方米="1",
    平方公里="1000000",
    公頃="10000",
    甲="9699.17",
    英畝_acre_acres="4046.856",
)
_add_units("volume", 公升_liter_liters_litre_litres="1", 毫升_cc_ml="0.001", 加侖_gallon_gallons="3.785412")
_add_units("time", 年="365", 天="1", 小時="1/24", 分鐘="1/1440", 秒="1/86400", 週_星期="7")

_HALVES = re.compile(rf"({NUMBER})個半小時(?:大概|大約|等於|就是|是|有)+\s*(?:幾|多少)\s*分鐘")
_UNIT = "|".join(re.escape(name) for name in sorted(_UNITS, key=len, reverse=True))
_CONVERSION = re.compile(
    rf"(?P<value>{NUMBER})\s*個?(?P<unit>{_UNIT})[\s,]*"
    r"(?:大概|大約|差不多|約|換算|換成|轉成|等於|就是|是|有|成|會|多|相當於)+\s*(?:幾|多少)\s*個?(?P<to>" + _UNIT + r")"
)
_CONVERSION_ENGLISH = re.compile(
    rf"how many\s+(?P<to>[a-z]+)\s+(?:is|are|in|are in|are there in|does)\s+(?P<value>{NUMBER}|an?)\s*(?P<unit>[a-z]+)"
    rf"|(?:convert|what(?:'s| is| are)|how much is)\s+(?P<value2>{NUMBER})\s*(?P<unit2>[a-z]+)"
    r"\s+(?:in|to|into)\s+(?P<to2>[a-z]+)",
    re.IGNORECASE,
)
_TEMPERATURE = re.compile(
    rf"(?P<from>攝氏|華氏)\s*(?P<below>零下|負|-)?(?P<value>{NUMBER})\s*度.*?(?P<to>攝氏|華氏)\s*(?:是|等於)?\s*(?:幾|多少)"
)
_TEMPERATURE_ENGLISH = re.compile(
    rf"(?P<below>-|minus\s+)?(?P<value>{NUMBER})\s*(?:degrees?\s*)?(?P<from>celsius|fahrenheit).*?\b(?:in|to|into)\s+(?P<to>celsius|fahrenheit)",
    re.IGNORECASE,
)


def _compute_temperature(asked: str) -> Fact | None:
    match = _TEMPERATURE.search(asked) or _TEMPERATURE_ENGLISH.search(asked)
    if match is None or match["from"].lower() == match["to"].lower():
        return None
    value = _number(match["value"]) * (-1 if match["below"] else 1)
    to_fahrenheit = match["from"].lower() in ("攝氏", "celsius")
    result = value * 9 / 5 + 32 if to_fahrenheit else (value - 32) * 5 / 9
    shown, worked_out = format_number(value, decimals=1), format_number(result, decimals=1)
    if _is_chinese(asked):
        return Fact(f"{match['from']} {shown} 度 = {match['to']} {worked_out} 度", result)
    return Fact(f"{shown} degrees {match['from']} = {worked_out} degrees {match['to']}", result)


def _compute_conversion(asked: str) -> Fact | None:
    if match := _HALVES.search(asked):
        minutes = 60 * _number(match[1]) + 30
        return Fact(f"{match[1]}個半小時 = {format_number(minutes)} 分鐘", minutes)
    if match := _CONVERSION.search(asked):
        value, unit, to = match["value"], match["unit"], match["to"]
    elif match := _CONVERSION_ENGLISH.search(asked):
        value = match["value"] or match["value2"]
        unit, to = (match["unit"] or match["unit2"]).lower(), (match["to"] or match["to2"]).lower()
    else:
        return None
    if unit not in _UNITS or to not in _UNITS:
        return None
    (dimension, size), (to_dimension, to_size) = _UNITS[unit], _UNITS[to]
    if dimension != to_dimension or unit == to:
        return None
    count = Fraction(1) if value.lower() in ("a", "an") else _number(value)
    result = count * size / to_size
    return Fact(f"{format_number(count)} {unit} = {format_number(result)} {to}", result)


_REPUBLIC = re.compile(rf"民國\s*({NUMBER})\s*年.*西元")
_COMMON_ERA = re.compile(r"(?:西元)?\s*(\d{4})\s*年.*民國")


def _compute_year(asked: str) -> Fact | None:
    if match := _REPUBLIC.search(asked):
        year = _number(match[1])
        return Fact(f"民國 {format_number(year)} 年 = 西元 {format_number(year + 1911)} 年")
    if (match := _COMMON_ERA.search(asked)) and int(match[1]) > 1911:
        return Fact(f"西元 {match[1]} 年 = 民國 {int(match[1]) - 1911} 年")
    return None


# --- going on from what was asked before ---

_OTHER_COUNT = re.compile(rf"^(?:那麼?|如果|要是)?[\s,]*(?:買|要|換成)?\s*({NUMBER})\s*({_CLASSIFIER})(?:的話)?呢")
_PAYS = re.compile(rf"(?:付|給|拿)[^,\d]{{0,4}}?({NUMBER})\s*{_MONEY}.*?(?:找|剩)")


def _compute_follow_up(asked: str, earlier: str) -> Fact | None:
    try:
        price = _UNIT_PRICE.search(earlier)
        other = _OTHER_COUNT.search(asked)
        if price and other and other[2] == price["unit"]:
            return _multiply(_number(price["price"]), _number(other[1]), " 元")
        pays = _PAYS.search(asked)
        cost = _compute_purchase(earlier) if pays else None
        if pays and cost and cost.value is not None:
            return _subtract_from(_number(pays[1]), cost.value)
    except _NotANumber:
        pass
    return None


def _is_chinese(text: str) -> bool:
    return any("\u3400" <= character <= "\u9fff" for character in text)


_CALCULATIONS = tuple(
    _skipping_words(compute)
    for compute in (
        _compute_year,
        _compute_temperature,
        _compute_conversion,
        _compute_discount,
        _compute_percentage,
        _compute_purchase,
        _compute_change,
        _compute_travel_time,
        _compute_time,
        _compute_sum,
    )
)
