"""REST framework's exception handler: every refusal of the API in one form, `{"code", "detail", "field"?}`."""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import OperationalError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler

from avatar_site.lib.disk import is_disk_full
from avatar_site.lib.problems import ProblemError, describe, status_of
from avatar_site.lib.stored_files import StorageUnavailable
from inference.interfaces import InferenceBusy, InferenceError, InferenceUnavailable

logger = logging.getLogger(__name__)

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
    """Translate an exception to a response. An unexpected one is not handled: Django logs it and answers 500."""
    match error:
        case ProblemError():
            return Response(describe(error.problem, field=error.field, **error.values), status_of(error.problem))
        case InferenceBusy():
            return _respond("inference_busy")
        case InferenceUnavailable():
            return _respond("inference_unavailable")
        case InferenceError():
            return _respond("inference_failed")
        case StorageUnavailable():
            logger.error("the storage of files: %s", error)
            return _respond("storage_unavailable")
        case OSError() | OperationalError() if is_disk_full(error):
            logger.error("the disk is full: %s", error)
            return _respond("storage_full")
        case RequestDataTooBig():
            return _respond("request_too_large")
        case SuspiciousOperation():
            return _respond("invalid")
        case exceptions.ValidationError():
            sentence, field = _find_first(error.get_full_details())
            return Response(describe("invalid", detail=sentence, field=field), status_of("invalid"))
    response = exception_handler(error, context)
    if response is None:
        return None
    code = next((code for kind, code in _CODES if isinstance(error, kind)), "invalid")
    headers = {name: value for name, value in response.headers.items() if name not in ("Content-Type", "Vary")}
    return Response(describe(code), response.status_code, headers=headers)


def _respond(code: str) -> Response:
    return Response(describe(code), status_of(code))


def _find_first(details: Any, field: str = "") -> tuple[str, str]:
    """Return the sentence and the field of the first of the things that are wrong with a request."""
    if isinstance(details, dict) and "message" in details and "code" in details:
        return str(details["message"]), field
    if isinstance(details, dict):
        name, inner = next(iter(details.items()))
        is_field = isinstance(name, str) and name != "non_field_errors"
        return _find_first(inner, field or (name if is_field else ""))
    return _find_first(next(item for item in details if item), field)
