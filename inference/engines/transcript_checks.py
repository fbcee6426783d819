"""Signs that a transcript is wrong, from its text and Whisper's figures. Pure: no audio, no engine."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from enum import Enum, auto

#: Below it Whisper guesses. Whisper itself decodes again below -1.0 (openai/whisper, transcribe.py). Of 148 clips in a
#: window of 10 s, 8 were below -0.6, and a second pass corrected three words in them (不知痛: 肚子痛); it did
#: not seem to help the 14 between that and -0.5 (read side by side, not counted).
MIN_LOG_PROBABILITY = -0.6
#: openai/whisper, transcribe.py: more is a loop.
MAX_COMPRESSION_RATIO = 2.4
#: Syllables a second. People speak four to seven (Mandarin) and seldom eight; a loop says more.
MAX_SYLLABLES_PER_S = 8.0
#: Below this rate, in speech of at least `MIN_TELLING_S`, words are missing.
MIN_SYLLABLES_PER_S = 0.7
MIN_TELLING_S = 2.5
#: A loop has more tokens a second than this; people who repeat themselves stay below.
LOOP_TOKENS_PER_S = 6
MIN_REPEATED = 10
#: Two sentences that differ in at most this share of their letters are one sentence recognised twice.
MAX_DIFFERENCE = 0.3
MIN_ALIKE = 5

#: Where the recogniser writes a symbol, it has guessed an operation from the numbers around it. With only "+"
#: suppressed, as Whisper does by default, "125加378" became "125×378".
OPERATORS = "+×÷=*−±√"
#: These are operators between numbers only: "e-mail" and "Plan X" are not.
OPERATORS_BETWEEN_NUMBERS = "-–xX/"

_OPERATOR = re.compile(rf"[{re.escape(OPERATORS)}]|\d\s*[{re.escape(OPERATORS_BETWEEN_NUMBERS)}]\s*\d")
_SENTENCE = re.compile(r"[^。！？.!?]+")


class Defect(Enum):
    """Why a transcript is recognised again."""

    UNLIKELY = auto()
    COMPRESSIBLE = auto()
    TOO_FAST = auto()
    TOO_SLOW = auto()
    SAID_TWICE = auto()
    OPERATOR = auto()


def check_transcript(text: str, *, log_probability: float, duration_s: float) -> Defect | None:
    """Return the first defect of the transcript of `duration_s` of audio; None if there is none."""
    if has_operator(text):
        return Defect.OPERATOR
    if extract_loop(text) or drop_near_repeat(text):
        return Defect.SAID_TWICE
    if log_probability < MIN_LOG_PROBABILITY:
        return Defect.UNLIKELY
    encoded = text.encode()
    if len(encoded) > MAX_COMPRESSION_RATIO * len(zlib.compress(encoded)):
        return Defect.COMPRESSIBLE
    syllables = count_syllables(text)
    if syllables > MAX_SYLLABLES_PER_S * max(1.0, duration_s):
        return Defect.TOO_FAST
    if duration_s >= MIN_TELLING_S and syllables < MIN_SYLLABLES_PER_S * duration_s:
        return Defect.TOO_SLOW
    return None


def has_operator(text: str) -> bool:
    return bool(_OPERATOR.search(text))


def count_syllables(text: str) -> float:
    """Estimate syllables: one a Chinese character or digit, one for three letters of English."""
    return sum(1 / 3 if character.isascii() and character.isalpha() else 1 for character in text if character.isalnum())


def drop_repetition(text: str, *, tokens: int, duration_s: float) -> str:
    """Return the repeated unit of a loop if the text is too long for its duration; else the text."""
    if tokens <= LOOP_TOKENS_PER_S * duration_s:
        return text
    return extract_loop(text) or drop_near_repeat(text) or text


def extract_loop(text: str) -> str:
    """
    Return what `text` consists of, if that is one thing said twice or more, the last time perhaps cut off.

    The shortest period of the letters alone, found as in Knuth, Morris and Pratt. Empty if there is none. A second time
    that was cut off counts from `MIN_REPEATED` letters on: people begin a sentence twice, but not so long a part.
    """
    letters = [(character.casefold(), index) for index, character in enumerate(text) if character.isalnum()]
    borders = [0] * len(letters)
    for index in range(1, len(letters)):
        border = borders[index - 1]
        while border and letters[index][0] != letters[border][0]:
            border = borders[border - 1]
        borders[index] = border + (letters[index][0] == letters[border][0])
    repeated = borders[-1] if letters else 0
    period = len(letters) - repeated
    if repeated == 0 or repeated < min(period, MIN_REPEATED):
        return ""
    return text[: letters[period][1]].strip() if period < len(letters) else ""


def drop_near_repeat(text: str) -> str:
    """
    Return the text without its second half, if that says nearly the same as the first, as in
    125×378等於多少？125加378等於多少？

    Whole sentences only, and an even number of them. Empty otherwise.
    """
    sentences = [match for match in _SENTENCE.finditer(text) if any(map(str.isalnum, match[0]))]
    if not sentences or len(sentences) % 2:
        return ""
    middle = len(sentences) // 2
    first, second = ("".join(_letters(match[0]) for match in half) for half in (sentences[:middle], sentences[middle:]))
    longest = max(len(first), len(second))
    if min(len(first), len(second)) < MIN_ALIKE or _count_edits(first, second) > MAX_DIFFERENCE * longest:
        return ""
    return text[: sentences[middle].start()].strip()


def _letters(text: str) -> str:
    return "".join(character.casefold() for character in text if character.isalnum())


def _count_edits(one: Sequence[str], other: Sequence[str]) -> int:
    """Levenshtein's distance."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]
