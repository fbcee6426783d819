"""Hooks of drf-spectacular: what the OpenAPI schema leaves out."""

from __future__ import annotations

from typing import Any


def leave_out_second_names(endpoints: list[Any], **kwargs: Any) -> list[Any]:
    """Leave out the singular paths, which are aliases of the plural ones."""
    return [
        endpoint
        for endpoint in endpoints
        if not endpoint[0].startswith("/api/voice-profile/") and endpoint[0] != "/api/voice-profile"
    ]
