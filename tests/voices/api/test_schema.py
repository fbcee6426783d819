from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.urls import get_resolver
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema

from avatar_site.lib.problems import PROBLEMS
from voices.api import urls


class TestSchema:
    @pytest.fixture
    def schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
        return schema

    def test_is_valid_and_has_every_endpoint(self, schema: dict[str, Any]) -> None:
        validate_schema(schema)
        plural = {
            "/api/" + pattern.pattern._route.replace("<uuid:", "{").replace(">", "}")  # type: ignore[union-attr]
            for pattern in urls.urlpatterns
            if not str(pattern.name).startswith("singular-")
        }

        assert {path for path in schema["paths"] if path.startswith("/api/voice")} == plural
        assert get_resolver().reverse_dict

    def test_has_words_errors_and_examples_for_every_operation(self, schema: dict[str, Any]) -> None:
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                if method == "parameters" or not path.startswith("/api/voice"):
                    continue
                assert operation["summary"], (path, method)
                errors = {status for status in operation["responses"] if status.startswith(("4", "5"))}
                assert errors, (path, method)
                for status in errors:
                    content = operation["responses"][status]["content"]["application/json"]
                    assert content["examples"], (path, method, status)

    @pytest.mark.parametrize(
        ("method", "path", "codes"),
        [
            ("get", "/audio", {"416": ["range_invalid"], "503": ["storage_unavailable"]}),
            ("get", "/recordings/{recording_id}/audio", {"416": ["range_invalid"], "503": ["storage_unavailable"]}),
            ("get", "/previews/{preview_id}/audio", {"416": ["range_invalid"], "503": ["storage_unavailable"]}),
            ("get", "/export", {"503": ["storage_unavailable"]}),
            ("delete", "", {"503": ["deletion_unfinished"]}),
            (
                "post",
                "/preview",
                {
                    "502": ["inference_failed"],
                    "503": ["inference_unavailable", "inference_busy", "storage_unavailable"],
                    "507": ["storage_full"],
                },
            ),
            (
                "post",
                "/recordings",
                {"409": ["quota_exceeded", "too_many_recordings", "voice_too_large", "disabled", "deleting"]},
            ),
        ],
    )
    def test_tells_what_files_and_engines_can_refuse(
        self, schema: dict[str, Any], method: str, path: str, codes: dict[str, list[str]]
    ) -> None:
        responses = schema["paths"][f"/api/voice-profiles/{{profile_id}}{path}"][method]["responses"]

        for status, expected in codes.items():
            assert list(responses[status]["content"]["application/json"]["examples"]) == [
                "".join(part.capitalize() for part in code.split("_")) for code in expected
            ]

    def test_is_served_with_a_page_that_needs_no_other_host(self, alices_client: Client) -> None:
        assert alices_client.get("/api/schema").status_code == 200
        page = alices_client.get("/api/docs").content.decode()

        assert "swagger" in page
        assert "http://" not in page
        assert "https://" not in page


class TestDocumentation:
    def test_lists_every_endpoint_and_every_refusal_of_a_recording(self) -> None:
        page = (settings.BASE_DIR / "docs/api.md").read_text(encoding="utf-8")

        for path in SchemaGenerator().get_schema(request=None, public=True)["paths"]:
            if path.startswith("/api/voice"):
                assert f"{path}`" in page, path
        for code in PROBLEMS:
            if code.startswith(("audio_", "consent_")) and code != "audio_required":
                assert f"`{code}`" in page, code
