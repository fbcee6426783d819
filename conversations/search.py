"""
Tokens of the search index, search queries and excerpts. Pure: imports no Django.

Neither database can segment Chinese, so every character of a script without spaces is a token, and a term is searched
as a phrase: any substring is found. Tokens are ASCII (other characters are written as code points), so that they do not
depend on a database's notion of letters, and none can be read as an operator.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

#: Longer queries are cut off.
MAX_QUERY_CHARACTERS = 200
MAX_TERMS = 16
#: Words match by prefix. A single letter would match nearly everything, so it matches itself alone.
PREFIX_MIN_CHARACTERS = 2
EXCERPT_CHARACTERS = 80
#: Characters of an excerpt before the match.
_LEAD_CHARACTERS = 20

#: Scripts written without spaces: kana, bopomofo, Hangul, Han with its extensions.
_SINGLE = re.compile(
    "[\u3040-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)


@dataclass(frozen=True, slots=True)
class Token:
    """A token and its place in the text. `is_word`: of a script with spaces, so that a prefix may match."""

    key: str
    start: int
    end: int
    is_word: bool


#: Consecutive tokens; the last may be a prefix.
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
            # A combining mark is normalised to nothing and does not end the word.
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
    """Fold width, case and accents; empty for a character that is neither letter nor digit."""
    if _SINGLE.match(character):
        return character
    plain = unicodedata.normalize("NFKD", character).casefold()
    return "".join(part for part in plain if part.isalnum())


def _encode(character: str) -> str:
    return character if character.isascii() else f"u{ord(character):x}"


def index_text(text: str) -> str:
    """Return the tokens of a text as the index stores them."""
    return " ".join(token.key for token in tokenise(text))


def parse_query(query: str) -> list[Term]:
    """Split a query into terms at its blanks. Empty without a letter or digit."""
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
    """Return the spans of a text that match the terms, in order and merged. Empty unless every term matches."""
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
    """Return the text around the first span in pieces, with an ellipsis where it was cut."""
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
