from __future__ import annotations

import ast
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import translation
from rest_framework import exceptions

from avatar_site.api_errors import handle
from avatar_site.lib.problems import PROBLEMS, ProblemError, code_of, describe, sentence_of, status_of

DOCUMENTS = ("docs/api.md", "docs/history.md", "docs/protocol.md")
#: Where a problem is named by its key.
NAMED_BY = {"ProblemError", "describe", "refusals", "sentence_of", "status_of", "_respond"}


def read_documents() -> str:
    return "".join((settings.BASE_DIR / name).read_text(encoding="utf-8") for name in DOCUMENTS)


def find_named_problems() -> set[str]:
    """Every problem that the source names where one is raised or described."""
    found = set()
    for package in ("avatar_site", "conversations", "voices"):
        for path in Path(settings.BASE_DIR / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") in NAMED_BY:
                    found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and arg.value}
    return found


class TestTable:
    @pytest.mark.parametrize("problem", sorted(PROBLEMS))
    def test_documents_every_code(self, problem: str) -> None:
        assert f"`{code_of(problem)}`" in read_documents()

    @pytest.mark.parametrize("problem", sorted(PROBLEMS))
    def test_has_every_sentence_in_both_languages(self, problem: str) -> None:
        with translation.override("en"):
            english = str(PROBLEMS[problem].sentence)
        with translation.override("zh-hant"):
            chinese = str(PROBLEMS[problem].sentence)

        assert any("\u4e00" <= character <= "\u9fff" for character in chinese), chinese
        assert english.isascii() or "’" in english

    def test_has_every_problem_that_the_source_names(self) -> None:
        named = find_named_problems()

        assert len(named) > 30
        assert named <= set(PROBLEMS)

    def test_agrees_with_the_statuses_of_rest_framework(self) -> None:
        for error in (
            exceptions.NotFound(),
            exceptions.MethodNotAllowed("PUT"),
            exceptions.PermissionDenied(),
            exceptions.Throttled(),
        ):
            response = handle(error, {})
            assert response is not None
            assert response.status_code == status_of(response.data["code"])


class TestSentence:
    def test_has_its_values_filled_in(self) -> None:
        error = ProblemError("longer_than_site", field="text_days", values={"days": 30})

        with translation.override("en"):
            assert error.sentence == "Nothing is kept here for longer than 30 days."

    def test_of_a_code_that_the_table_has_no_longer_is_general(self) -> None:
        """A failed voice keeps the code that an earlier version gave it."""
        assert describe("made_up") == {"code": "made_up", "detail": sentence_of("internal")}

    def test_can_be_a_second_one_of_a_code(self) -> None:
        body = describe("not_all_deleted")

        assert body["code"] == "storage_unavailable"
        assert body["detail"] != sentence_of("storage_unavailable")
