import pytest

from conversations.search import (
    Piece,
    cut_excerpt,
    find_spans,
    index_text,
    parse_query,
    tokenise,
    write_fts5,
    write_tsquery,
)


class TestTokenise:
    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("今天天氣", ["今", "天", "天", "氣"]),
            ("我用Python寫", ["我", "用", "Python", "寫"]),
            ("Hello, World-wide!", ["Hello", "World", "wide"]),
            ("𠮷野家", ["𠮷", "野", "家"]),
            ("ㄅㄆ アイ", ["ㄅ", "ㄆ", "ア", "イ"]),
            ("3.14", ["3", "14"]),
            ("，。？！", []),
            ("", []),
        ],
    )
    def test_says_where_each_token_stands(self, text: str, parts: list[str]) -> None:
        assert [text[token.start : token.end] for token in tokenise(text)] == parts

    @pytest.mark.parametrize(
        ("one", "other"), [("ＡＢＣ１", "abc1"), ("Café", "cafe"), ("cafe\u0301", "café"), ("ß", "SS")]
    )
    def test_takes_spellings_for_the_same(self, one: str, other: str) -> None:
        assert index_text(one) == index_text(other)

    def test_is_ascii_whatever_was_said(self) -> None:
        assert index_text("天氣 привет Weather").isascii()


class TestQueries:
    def test_are_phrases_of_one_owner(self) -> None:
        assert write_fts5(parse_query("天氣"), owner_id=7) == '{owner_id} : "7" AND {text} : ("u5929 u6c23")'

    def test_find_words_from_their_beginning(self) -> None:
        assert '"wea" *' in write_fts5(parse_query("Wea"), owner_id=7)
        assert write_tsquery(parse_query("用Wea a")) == "(u7528 <-> wea:*) & (a)"

    @pytest.mark.parametrize(
        "query", ['"', "'; DROP TABLE x; --", "a OR b", "NEAR(a b)", "a* ^b", "text:a", "(((", "%_", "a\0b"]
    )
    def test_hold_no_operators(self, query: str) -> None:
        keys = [token.key for term in parse_query(query) for token in term]

        assert all(key.isalnum() and key == key.lower() for key in keys)

    @pytest.mark.parametrize("query", ["", "  ", "，。", '"*^()', "%"])
    def test_are_none_without_a_letter(self, query: str) -> None:
        assert parse_query(query) == []

    def test_are_bounded(self) -> None:
        assert len(parse_query("天 " * 1000)) == 16


class TestFindSpans:
    @pytest.mark.parametrize(
        ("text", "query", "found"),
        [
            ("今天天氣很好", "天氣", ["天氣"]),
            ("今天天氣很好", "天天", ["天天"]),
            ("天氣，天氣", "天氣", ["天氣", "天氣"]),
            ("The Weather today", "wea", ["Weather"]),
            ("台北的天氣", "天氣 台北", ["台北", "天氣"]),
            ("台北的天氣", "天氣 高雄", []),
            ("今天", "今天天", []),
            ("a cat", "a", ["a"]),
        ],
    )
    def test_finds_all_terms_or_none(self, text: str, query: str, found: list[str]) -> None:
        assert [text[start:end] for start, end in find_spans(text, parse_query(query))] == found


class TestCutExcerpt:
    def test_marks_what_was_found(self) -> None:
        assert cut_excerpt("今天天氣好", [(2, 4)]) == [Piece("今天", False), Piece("天氣", True), Piece("好", False)]

    def test_shows_the_surroundings_in_a_long_text(self) -> None:
        text = "前" * 500 + "天氣" + "後" * 500
        pieces = cut_excerpt(text, [(500, 502)])

        assert pieces[0] == pieces[-1] == Piece("…", False)
        assert Piece("天氣", True) in pieces
        assert sum(len(piece.text) for piece in pieces) < 100

    def test_is_the_beginning_when_nothing_is_marked(self) -> None:
        assert cut_excerpt("今天", []) == [Piece("今天", False)]
