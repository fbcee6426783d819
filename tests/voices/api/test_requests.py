"""Every request body is posted with what its schema forbids: the schema says what is tried."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from drf_spectacular.generators import SchemaGenerator

from tests import factories
from tests.fakes import FakeInference

FILE = SimpleUploadedFile("voice.bin", b"x")
#: Valid values, so that nothing but the one that is tried is wrong.
VALID: dict[str, Any] = {
    "name": "Mine",
    "language": "zh",
    "is_shared": False,
    "quality": "fast",
    "text": "你好",
    "consent_attestation": "own_voice",
    "consent_text_sha256": "0" * 64,
    "audio": FILE,
    "file": FILE,
}
JSON, FORM = "application/json", "multipart/form-data"


@cache
def read_schema() -> dict[str, Any]:
    schema: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return schema


def resolve(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference, alone or as the only part of an `allOf`."""
    (reference,) = [each["$ref"] for each in (part, *part.get("allOf", ())) if "$ref" in each] or [""]
    return schema["components"]["schemas"][reference.rpartition("/")[2]] if reference else part


def find_forbidden(schema: dict[str, Any], part: dict[str, Any], *, is_form: bool) -> Iterator[Any]:
    """Values of a property that its schema forbids."""
    of_field = resolve(schema, part)
    if of_field.get("format") == "binary":
        yield "a word"
        return
    if "enum" in of_field:
        yield "none of them"
    if "maxLength" in of_field:
        yield "x" * (of_field["maxLength"] + 1)
    if of_field["type"] == "string":
        yield "a\0b"
        if not is_form:
            yield from ("", 7, True, ["zh"], {"a": "b"}, "a\ud800b")
    else:
        yield from ("true", "false", 0, 1, [], {})
    if not is_form:
        yield None


def find_cases() -> Iterator[tuple[str, str, str, str, Any]]:
    """Method, path, content type, field and value: "" for the whole body, `...` for a field that is left out."""
    schema = read_schema()
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            if not path.startswith("/api/voice") or "requestBody" not in operation:
                continue
            ((content_type, content),) = operation["requestBody"]["content"].items()
            body = resolve(schema, content["schema"])
            for field, part in body["properties"].items():
                for value in find_forbidden(schema, part, is_form=content_type == FORM):
                    yield method, path, content_type, field, value
            for field in body.get("required", ()):
                yield method, path, content_type, field, ...
            if content_type == JSON:
                yield from ((method, path, content_type, "", each) for each in ([], ["name"], "text", 7))


CASES = [pytest.param(*case, id=f"{case[0]} {case[1]} {case[3]} {ascii(case[4])[:20]}") for case in find_cases()]


def test_every_endpoint_with_a_body_is_tried() -> None:
    assert {(method, path.rpartition("/")[2]) for method, path, *_ in (case.values for case in CASES)} == {
        ("post", "voice-profiles"),
        ("patch", "{profile_id}"),
        ("post", "preview"),
        ("post", "recordings"),
        ("post", "import"),
        ("patch", "voice-default"),
    }


@pytest.mark.parametrize(("method", "path", "content_type", "field", "value"), CASES)
def test_refuses_what_the_schema_forbids_with_a_code_that_it_documents(
    alices_client: Client,
    alice: User,
    inference: FakeInference,
    method: str,
    path: str,
    content_type: str,
    field: str,
    value: Any,
) -> None:
    profile = factories.create_voice_profile(owner=alice)
    schema = read_schema()
    operation = schema["paths"][path][method]
    properties = resolve(schema, operation["requestBody"]["content"][content_type]["schema"])["properties"]
    FILE.seek(0)
    fields = {name: VALID[name] for name in properties if name not in (field, "consent_text_sha256")}
    if field and value is not ...:
        fields[field] = value
    address = path.replace("{profile_id}", str(profile.pk))

    if content_type == FORM:
        response = alices_client.post(address, fields)
    else:
        body = json.dumps(fields if field else value)
        response = getattr(alices_client, method)(address, body, content_type=content_type)

    documented = operation["responses"]["400"]["content"]["application/json"]["examples"].values()
    assert response.status_code == 400, response.content
    assert response.json()["code"] in {example["value"]["code"] for example in documented}
    assert response.json().get("field", "") == field
    profile.refresh_from_db()
    assert (profile.name, profile.language, profile.state) == ("My voice", "zh", "ready")


@pytest.mark.parametrize("scope", ["all", "own,shared"])
def test_refuses_a_scope_that_is_none(alices_client: Client, scope: str) -> None:
    response = alices_client.get(f"/api/voice-profiles?scope={scope}")

    assert (response.status_code, response.json()["code"], response.json()["field"]) == (400, "invalid", "scope")
