"""Every refusal of the API in one form: `{"code", "detail", "field"?}`, the detail in the user's language."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler

from inference.interfaces import InferenceBusy, InferenceError, InferenceUnavailable
from voices.wording import VoiceProblem, word_problem

_STATUS = {
    "audio_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "quota_exceeded": HTTPStatus.CONFLICT,
    "last_recording": HTTPStatus.CONFLICT,
    "too_many_recordings": HTTPStatus.CONFLICT,
    "not_ready": HTTPStatus.CONFLICT,
    "recording_missing": HTTPStatus.CONFLICT,
    "not_failed": HTTPStatus.CONFLICT,
    "disabled": HTTPStatus.CONFLICT,
    "fitting_impossible": HTTPStatus.CONFLICT,
    "stock_voice": HTTPStatus.FORBIDDEN,
    "operators_only": HTTPStatus.FORBIDDEN,
    "storage_full": HTTPStatus.INSUFFICIENT_STORAGE,
    "inference_unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "inference_busy": HTTPStatus.SERVICE_UNAVAILABLE,
    "inference_failed": HTTPStatus.BAD_GATEWAY,
}
_CODES: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.NotAuthenticated, "not_logged_in"),
    (exceptions.AuthenticationFailed, "not_logged_in"),
    (exceptions.PermissionDenied, "forbidden"),
    (PermissionDenied, "forbidden"),
    (exceptions.NotFound, "not_found"),
    (Http404, "not_found"),
    (exceptions.MethodNotAllowed, "method_not_allowed"),
    (exceptions.Throttled, "too_many_requests"),
)


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler. What nobody expected stays an exception, is logged and answered with 500."""
    match error:
        case VoiceProblem():
            return _respond(error.code, _STATUS.get(error.code, HTTPStatus.BAD_REQUEST), field=error.field)
        case InferenceBusy():
            return _respond("inference_busy", HTTPStatus.SERVICE_UNAVAILABLE)
        case InferenceUnavailable():
            return _respond("inference_unavailable", HTTPStatus.SERVICE_UNAVAILABLE)
        case InferenceError():
            return _respond("inference_failed", HTTPStatus.BAD_GATEWAY)
        case exceptions.ValidationError(detail=dict() as fields) if fields:
            return _respond("invalid", HTTPStatus.BAD_REQUEST, field=str(next(iter(fields))))
    response = exception_handler(error, context)
    if response is None:
        return None
    code = next((code for kind, code in _CODES if isinstance(error, kind)), "invalid")
    headers = {name: value for name, value in response.headers.items() if name not in ("Content-Type", "Vary")}
    return _respond(code, response.status_code, headers=headers)


def _respond(code: str, status: int, *, field: str = "", headers: dict[str, str] | None = None) -> Response:
    body = {"code": code, "detail": word_problem(code)}
    if field:
        body["field"] = field
    return Response(body, status=status, headers=headers)
