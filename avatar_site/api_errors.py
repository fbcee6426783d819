"""Every refusal of the API in one form: `{"code", "detail", "field"?}`, the detail in the user's language."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import OperationalError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler

from avatar_site.failures import StorageUnavailable
from avatar_site.lib.disk import is_disk_full
from inference.interfaces import InferenceBusy, InferenceError, InferenceUnavailable
from voices.wording import VoiceProblem, word_problem

logger = logging.getLogger(__name__)

_STATUS = {
    "audio_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "archive_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "quota_exceeded": HTTPStatus.CONFLICT,
    "voice_too_large": HTTPStatus.CONFLICT,
    "last_recording": HTTPStatus.CONFLICT,
    "too_many_recordings": HTTPStatus.CONFLICT,
    "not_ready": HTTPStatus.CONFLICT,
    "recording_missing": HTTPStatus.CONFLICT,
    "not_failed": HTTPStatus.CONFLICT,
    "disabled": HTTPStatus.CONFLICT,
    "deleting": HTTPStatus.CONFLICT,
    "deletion_unfinished": HTTPStatus.SERVICE_UNAVAILABLE,
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
#: Codes that apps raise with sentences of their own.
PROBLEMS_OF_APPS = {"longer_than_site", "not_correctable", "storage_unavailable"}


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
        case StorageUnavailable():
            logger.error("the storage of files: %s", error)
            return _respond("storage_unavailable", HTTPStatus.SERVICE_UNAVAILABLE)
        case OSError() | OperationalError() if is_disk_full(error):
            logger.error("the disk is full: %s", error)
            return _respond("storage_full", HTTPStatus.INSUFFICIENT_STORAGE)
        case RequestDataTooBig():
            return _respond("request_too_large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        case SuspiciousOperation():
            return _respond("invalid", HTTPStatus.BAD_REQUEST)
        case exceptions.ValidationError():
            code, detail, field = _take_first(error.get_full_details())
            return _respond(code, HTTPStatus.BAD_REQUEST, detail=detail, field=field)
    response = exception_handler(error, context)
    if response is None:
        return None
    headers = {name: value for name, value in response.headers.items() if name not in ("Content-Type", "Vary")}
    for kind, code in _CODES:
        if isinstance(error, kind):
            return _respond(code, response.status_code, headers=headers)
    if isinstance(error, exceptions.APIException) and error.default_code in PROBLEMS_OF_APPS:
        return _respond(error.default_code, response.status_code, detail=str(error.detail), headers=headers)
    return _respond("invalid", response.status_code, headers=headers)


def _take_first(details: Any, field: str = "") -> tuple[str, str, str]:
    """Of all that is wrong with a request: the code, the sentence and the field of the first."""
    if isinstance(details, dict) and "message" in details and "code" in details:
        code = str(details["code"])
        # The codes of single checks are not promised to anybody, ours are.
        return code if code in PROBLEMS_OF_APPS else "invalid", str(details["message"]), field
    if isinstance(details, dict):
        name, inner = next(iter(details.items()))
        is_field = isinstance(name, str) and name != "non_field_errors"
        return _take_first(inner, field or (name if is_field else ""))
    return _take_first(next(item for item in details if item), field)


def _respond(
    code: str, status: int, *, detail: str = "", field: str = "", headers: dict[str, str] | None = None
) -> Response:
    body = {"code": code, "detail": detail or word_problem(code)}
    if field:
        body["field"] = field
    return Response(body, status=status, headers=headers)
