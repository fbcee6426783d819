"""
Cuts a stream of tokens into clauses for synthesis. Pure: imports no Django, no engine.

The first clause is short, so that sound starts early; the second is still short, because it is made while the first
plays; later ones are longer, so that a call of the engine pays off.
What is displayed and what is spoken differ (Markdown, code, addresses and emoji are left out), and every clause knows
which of its displayed text a spoken part stands for. How numbers and dates are read is the engine's business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple


class ClauseLength(NamedTuple):
    """
    How long a clause is, in units of about one syllable: a Han character or a digit is one, an English word is two.

    It may end at punctuation from `least` on, at a breath from `good` on, and between words at `most`.
    """

    least: int
    good: int
    most: int


#: Of the first clause, the second, and all others.
CLAUSE_LENGTHS = (ClauseLength(5, 9, 13), ClauseLength(8, 14, 20), ClauseLength(12, 30, 40))
#: A list's comma ends a clause only when the clause would otherwise become long.
ENUMERATION_MIN = 24

_FENCE = "```"
#: Where a clause may end as soon as the character is there.
_WIDE_PUNCTUATION = frozenset("。！？；…，：︰﹔\n")
#: Where one may end once it is clear that no number, word or address goes on.
_NARROW_PUNCTUATION = frozenset(".!?;,:")
_OPENING = frozenset("「『（《〈【〔“‘([{<")
_CLOSING = frozenset("」』）》〉】〕”’)]}>")
_ABBREVIATION = re.compile(r"(?:^|[^A-Za-z])(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|vs|etc|No|Jr|Sr|e\.g|i\.e)\.$")
#: Text in which nothing may be cut, not complete yet: an address, a link, a tag.
_UNFINISHED = re.compile(
    r"(?:https?://|www\.)[!-~]*$"
    r"|!?\[[^\]\n]{0,80}\]?$"
    r"|\[[^\]\n]{0,200}\]\([^)\s]{0,500}$"
    r"|</?[A-Za-z][^>\n]{0,60}$"
)

#: What is displayed and not spoken. A group keeps what it captured.
_SILENT = re.compile(
    r"```.*?(?:```|\Z)"
    r"|!?\[(?P<link>[^\]\n]*)\]\([^)\s]*\)"
    r"|(?:https?://|www\.)[!-~]*[/\w]"
    r"|</?[A-Za-z][^>\n]*>"
    r"|(?:[*_~`#|\\]|\u20e3|[\ufe00-\ufe0f\u200b-\u200f\u2060\ufeff])"
    r"|[\U0001f000-\U0001faff\U000e0020-\U000e007f\u2190-\u21ff\u2300-\u23ff\u2460-\u24ff\u25a0-\u27bf\u2900-\u297f"
    r"\u2b00-\u2bff\u3030\u303d\u00a9\u00ae\u2122]",
    re.DOTALL,
)
#: The same, where a line begins: bullets, quotations, rules.
_SILENT_LINE_START = re.compile(r"[ \t]*(?:[-*_=]{3,}[ \t]*(?=\n|\Z)|(?:[-+•>][ \t]+)+)")
_UNIT = re.compile(r"(?P<word>[A-Za-z\u00c0-\u024f]+(?:['’][A-Za-z]+)*)|(?P<syllable>[^\W_])")

_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
#: After these Han characters, or before those, a breath does no harm.
_BREATH_AFTER = frozenset("的了著過是在會就都也很嗎呢吧啊喔")
_BREATH_BEFORE = frozenset("但而因所如我你您他她它這那請並還跟和與或")
#: English words that belong to what follows them.
_LEANING = re.compile(
    r"a|an|the|of|to|in|on|at|by|for|from|with|and|or|but|as|is|are|was|were|be|been|i|you|he|she|it|we|they|my|your"
    r"|his|her|its|our|their|this|that|these|those|if|when|can|could|will|would|should|may|might|not|very|so",
    re.IGNORECASE,
)
_WORD_BEFORE = re.compile(r"([A-Za-z']+)\s*$")


@dataclass(frozen=True, slots=True)
class Clause:
    """
    A piece of the reply: what is displayed, and what is said of it (empty when there is nothing to say).

    `offsets[i]` is how much of `display` has been covered once `spoken[:i + 1]` has been said.
    """

    display: str
    spoken: str
    offsets: tuple[int, ...]

    def read_heard(self, fraction: float) -> str:
        """Return the beginning of `display` that was heard when so much of the sound was; never half a word."""
        if fraction >= 1 or (fraction > 0 and not self.spoken):
            return self.display
        if fraction <= 0:
            return ""
        weights = list(accumulate(_weigh(character) for character in self.spoken))
        heard = sum(1 for weight in weights if weight <= weights[-1] * fraction + 1e-9)
        if heard == 0:
            return ""
        return _cut_back(self.display, self.offsets[heard - 1])


def _weigh(character: str) -> int:
    """How long a character takes to say, in thirds of a syllable. Punctuation is a short pause."""
    return 3 if character.isalnum() and not (character.isascii() and character.isalpha()) else 1


def _cut_back(text: str, end: int) -> str:
    """Shorten `text` to `end`, and further to where a word or a number begins if `end` is inside of one."""
    while 0 < end < len(text) and _is_inside_word(text[end - 1], text[end]):
        end -= 1
    return text[:end].rstrip() if end < len(text) else text


def _is_inside_word(before: str, after: str) -> bool:
    return _is_word_part(before) and _is_word_part(after)


def _is_word_part(character: str) -> bool:
    return not _HAN.match(character) and (character.isalnum() or character in "'’.,:/%@+-_$&=#~\\`*")


def measure(spoken: str) -> int:
    """Return the length of `spoken` in units."""
    return sum(2 if match["word"] else 1 for match in _UNIT.finditer(spoken))


def speak(display: str, *, is_line_start: bool = True) -> Clause:
    """Leave out of `display` what is not spoken."""
    characters: list[tuple[str, int]] = []
    position = 0
    at_line_start = is_line_start
    while position < len(display):
        if at_line_start and (match := _SILENT_LINE_START.match(display, position)) and match.end() > position:
            position = match.end()
            at_line_start = False
            continue
        if match := _SILENT.match(display, position):
            if match["link"] is not None:
                start = match.start("link")
                inner = speak(match["link"], is_line_start=False)
                characters += [(c, start + o) for c, o in zip(inner.spoken, inner.offsets, strict=True)]
            at_line_start = at_line_start and match.end() > position and display[position] in "#>"
            position = match.end()
            continue
        character = display[position]
        position += 1
        characters.append((" " if character.isspace() and character != "\n" else character, position))
        at_line_start = character == "\n" or (at_line_start and character in " \t")
    kept = _tidy(characters)
    return Clause(display, "".join(c for c, _ in kept), tuple(o for _, o in kept))


def _tidy(characters: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Join blanks, breathe between lines, drop stray punctuation; nothing is left of text without a word."""
    kept: list[tuple[str, int]] = []
    gap: tuple[str, int] | None = None
    for character, offset in characters:
        if character in " \n":
            gap = gap if gap and gap[0] == "\n" else (character, offset)
            continue
        if not kept and not character.isalnum() and character not in _OPENING and character not in "-+$€£¥%":
            continue
        if gap and kept and character not in _WIDE_PUNCTUATION and character not in _NARROW_PUNCTUATION:
            kept += _bridge(kept[-1][0], gap)
        gap = None
        kept.append((character, offset))
    return kept if any(c.isalnum() for c, _ in kept) else []


def _bridge(last: str, gap: tuple[str, int]) -> list[tuple[str, int]]:
    """Return what is said for a blank or the end of a line after `last`."""
    kind, offset = gap
    if kind == "\n" and last.isalnum():
        return [("，", offset)] if _HAN.match(last) else [(",", offset), (" ", offset)]
    return [] if last in _WIDE_PUNCTUATION or last == "、" else [(" ", offset)]


class ClauseCutter:
    """
    Takes a reply piece by piece and gives clauses as soon as they are complete.

    It looks at one character at a time, so how the reply is split into pieces makes no difference. The `display` texts
    of all clauses, joined, are the reply.
    """

    def __init__(self) -> None:
        self._pending = ""
        self._spoken_clauses = 0
        self._is_line_start = True
        self._is_in_fence = False
        #: Length in units at every place of `_pending` where a cut without punctuation would do.
        self._breaths: list[tuple[int, int]] = []
        self._last_resort: int | None = None

    def feed(self, text: str) -> list[Clause]:
        return [clause for character in text for clause in self._take(character)]

    def flush(self) -> list[Clause]:
        """Return what is left, now that the reply has ended."""
        if not self._pending:
            return []
        return [self._cut(len(self._pending))]

    def _take(self, character: str) -> list[Clause]:
        self._pending += character
        if self._pending.endswith(_FENCE):
            return self._toggle_fence()
        if self._is_in_fence or character == "`":
            return []
        end = self._choose_cut()
        return [self._cut(end)] if end else []

    def _toggle_fence(self) -> list[Clause]:
        self._is_in_fence = not self._is_in_fence
        before = self._pending[: -len(_FENCE)]
        if self._is_in_fence and speak(before, is_line_start=self._is_line_start).spoken:
            return [self._cut(len(before))]
        return []

    def _choose_cut(self) -> int | None:
        """Return where to cut what is pending, or None to wait for more."""
        text = self._pending
        last = text[-1]
        if _UNFINISHED.search(text):
            return None
        if (last in _WIDE_PUNCTUATION or last == "、") and not self._may_be_number(text):
            return len(text) if self._measure(text) >= self._minimum(last) else None
        if len(text) < 2:
            return None
        before = text[-2]
        if self._ends_before(text):
            # The blank goes with the clause that it ends.
            end = len(text) if last.isspace() else len(text) - 1
            if self._measure(text[:end]) >= self._minimum(before):
                return end
        return self._choose_breath(text)

    def _minimum(self, punctuation: str) -> int:
        least = self._length.least
        return max(least, ENUMERATION_MIN) if punctuation == "、" and self._spoken_clauses else least

    @property
    def _length(self) -> ClauseLength:
        return CLAUSE_LENGTHS[min(self._spoken_clauses, len(CLAUSE_LENGTHS) - 1)]

    @staticmethod
    def _may_be_number(text: str) -> bool:
        """Whether more characters decide if the last one is part of a number, such as a time written "3：30"."""
        return text[-1] in "：，" and len(text) > 1 and text[-2].isdigit()

    @staticmethod
    def _ends_before(text: str) -> bool:
        """Whether the last character but one ends a clause, seen from the last one."""
        before, last = text[-2], text[-1]
        if before in "：，":
            return len(text) > 2 and text[-3].isdigit() and not last.isdigit()
        if before not in _NARROW_PUNCTUATION:
            return False
        if before == "." and _ABBREVIATION.search(text[:-1]):
            return False
        if before == "." and re.search(r"(?:^|\n)\s*\d+\.$", text[:-1]):
            return False
        return last.isspace() or (not last.isascii() and last not in _CLOSING)

    def _choose_breath(self, text: str) -> int | None:
        """Return where to cut without punctuation, once the clause has become too long to wait for one."""
        place = len(text) - 1
        _, good, most = self._length
        if not _may_cut(text[place - 1], text[place]) or self._may_be_number(text[:place]):
            return None
        length = self._measure(text[:place])
        if length <= most:
            self._last_resort = place
            if _is_breath(text, place):
                if length >= good:
                    return place
                self._breaths.append((place, length))
            return None
        good_enough = [p for p, units in self._breaths if units >= good * 2 // 3]
        return (good_enough or [self._last_resort or place])[-1]

    def _measure(self, text: str) -> int:
        return measure(speak(text, is_line_start=self._is_line_start).spoken)

    def _cut(self, end: int) -> Clause:
        display, rest = self._pending[:end], self._pending[end:]
        clause = speak(display, is_line_start=self._is_line_start)
        self._is_line_start = display.endswith("\n")
        self._spoken_clauses += bool(clause.spoken)
        self._pending = ""
        self._breaths.clear()
        self._last_resort = None
        # Whatever follows the cut is shorter than a clause: it is looked at again without being cut.
        self._pending = rest
        return clause


def _may_cut(before: str, after: str) -> bool:
    """Whether the place between two characters is outside of words, numbers, quotations' edges and emoji."""
    if before in _OPENING or before == "第" or after == "`" or before == "`":
        return False
    if not (after.isalnum() or after in _OPENING):
        # Punctuation, blanks and joiners go with what they follow.
        return False
    if before.isdigit() and not after.isspace():
        return False
    return not _is_inside_word(before, after)


def _is_breath(text: str, place: int) -> bool:
    before, after = text[place - 1], text[place]
    if before.isspace():
        word = _WORD_BEFORE.search(text[:place])
        return word is None or not _LEANING.fullmatch(word[1])
    return before in _BREATH_AFTER or after in _BREATH_BEFORE or not (_HAN.match(before) and _HAN.match(after))
