"""
Words as the search index has them. Pure: no rows, no queries.

Neither database knows where a Chinese word ends, so every character of a script without spaces is a token of its own,
and a query is looked for as a phrase: any substring is found. Tokens are ASCII (what is not is written as its code
points), so that no database's idea of what a letter is matters, and none can be taken for an operator.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

#: What is longer is not looked for: a query is what somebody types into a field.
MAX_QUERY_CHARACTERS = 200
MAX_TERMS = 16
#: Words are found from their beginning; a single letter would find nearly everything, so it stands for itself.
PREFIX_MIN_CHARACTERS = 2
EXCERPT_CHARACTERS = 80
#: How much of an excerpt comes before what was looked for.
_LEAD_CHARACTERS = 20

#: Scripts written without spaces: kana, bopomofo, Hangul, Han with its extensions.
_SINGLE = re.compile(
    "[\u3040-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)


@dataclass(frozen=True, slots=True)
class Token:
    """One token and where it stands in its text. `is_word`: of a script with spaces, so it may be begun only."""

    key: str
    start: int
    end: int
    is_word: bool


#: Tokens that follow one another; the last may be the beginning of a word.
Term = tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an excerpt."""

    text: str
    is_match: bool


def tokenise(text: str) -> Iterator[Token]:
    word: list[str] = []
    start = 0
    for place, character in enumerate(text):
        parts = _normalise(character)
        is_single = len(parts) == 1 and _SINGLE.match(parts) is not None
        if is_single or not parts:
            # Nothing is left of a mark on a letter: it belongs to the word that it is in.
            if unicodedata.combining(character) and word:
                continue
            if word:
                yield Token("".join(word), start, place, True)
                word = []
            if is_single:
                yield Token(_encode(parts), place, place + 1, False)
            continue
        if not word:
            start = place
        word += [_encode(part) for part in parts]
    if word:
        yield Token("".join(word), start, len(text), True)


def _normalise(character: str) -> str:
    """Full width becomes half, upper becomes lower, accents go; empty for what is neither letter nor digit."""
    if _SINGLE.match(character):
        return character
    plain = unicodedata.normalize("NFKD", character).casefold()
    return "".join(part for part in plain if part.isalnum())


def _encode(character: str) -> str:
    return character if character.isascii() else f"u{ord(character):x}"


def index_text(text: str) -> str:
    """Return what is kept in the index for a text."""
    return " ".join(token.key for token in tokenise(text))


def parse_query(query: str) -> list[Term]:
    """Take a query apart at its blanks. Empty when there is neither a letter nor a digit in it."""
    terms = (tuple(tokenise(part)) for part in query[:MAX_QUERY_CHARACTERS].split())
    return [term for term in terms if term][:MAX_TERMS]


def _may_be_begun(token: Token) -> bool:
    return token.is_word and len(token.key) >= PREFIX_MIN_CHARACTERS


def write_fts5(terms: Sequence[Term], *, owner_id: int) -> str:
    """Write an SQLite FTS5 query: all terms in one text of this owner."""
    phrases = []
    for term in terms:
        words = " ".join(token.key for token in term)
        phrases.append(f'"{words}"' + (" *" if _may_be_begun(term[-1]) else ""))
    return f'{{owner_id}} : "{owner_id}" AND {{text}} : ({" AND ".join(phrases)})'


def write_tsquery(terms: Sequence[Term]) -> str:
    """Write a PostgreSQL `tsquery`: all terms in one text."""
    return " & ".join(
        "(" + " <-> ".join(t.key for t in term) + (":*" if _may_be_begun(term[-1]) else "") + ")" for term in terms
    )


def find_spans(text: str, terms: Sequence[Term]) -> list[tuple[int, int]]:
    """Return where a text says what was looked for, in order and without overlaps. Empty unless every term is in it."""
    tokens = list(tokenise(text))
    spans: list[tuple[int, int]] = []
    for term in terms:
        found = [
            (tokens[place].start, tokens[place + len(term) - 1].end)
            for place in range(len(tokens) - len(term) + 1)
            if _is_at(tokens[place : place + len(term)], term)
        ]
        if not found:
            return []
        spans += found
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _is_at(tokens: Sequence[Token], term: Term) -> bool:
    if any(token.key != wanted.key for token, wanted in zip(tokens[:-1], term[:-1], strict=True)):
        return False
    last, wanted = tokens[-1].key, term[-1]
    return last.startswith(wanted.key) if _may_be_begun(wanted) else last == wanted.key


def cut_excerpt(text: str, spans: Sequence[tuple[int, int]]) -> list[Piece]:
    """Return the surroundings of the first span in pieces, with an ellipsis where something was left out."""
    first = spans[0][0] if spans else 0
    start = max(0, first - _LEAD_CHARACTERS) if len(text) > EXCERPT_CHARACTERS else 0
    end = min(len(text), start + EXCERPT_CHARACTERS)
    pieces = [Piece("…", False)] if start else []
    place = start
    for span_start, span_end in spans:
        if span_start >= end:
            break
        if span_start > place:
            pieces.append(Piece(text[place:span_start], False))
        pieces.append(Piece(text[span_start : min(span_end, end)], True))
        place = min(span_end, end)
    if place < end:
        pieces.append(Piece(text[place:end], False))
    return [*pieces, Piece("…", False)] if end < len(text) else pieces
