"""What the OpenAPI schemas of the apps share: the form of a refusal, and refusals as the table of problems has them."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiResponse
from rest_framework import serializers

from avatar_site.lib.problems import code_of, describe, status_of

#: As `extend_schema(responses=…)` takes them.
Responses = dict[int | tuple[int, str], Any]


class ErrorSerializer(serializers.Serializer[Any]):
    """Why something was refused: a code for programs, a sentence for people that says what to do."""

    code = serializers.CharField()
    detail = serializers.CharField()
    field = serializers.CharField(required=False, help_text="Which field of the request was wrong, if one was.")


def refusals(*problems: str, field: str = "", **values: Any) -> Responses:
    """
    Describe what may be refused: a response for each status of the problems, with an example of each code.

    `field` and `values` go into the examples. Two results that have a status in common cannot be merged with `|`.
    """
    by_status: dict[int, list[str]] = {}
    for problem in problems:
        by_status.setdefault(int(status_of(problem)), []).append(problem)
    return {
        status: OpenApiResponse(
            ErrorSerializer,
            ", ".join(map(code_of, group)),
            [OpenApiExample(code_of(each), value=describe(each, field=field, **values)) for each in group],
        )
        for status, group in by_status.items()
    }
