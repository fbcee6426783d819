"""Django's error handlers (400, 403, 404, 500): JSON in the API's form under /api/, pages elsewhere."""

from __future__ import annotations

import sys
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.template import loader
from django.views import defaults

from avatar_site.lib.disk import is_disk_full
from avatar_site.lib.problems import describe, status_of


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    if _is_api(request):
        return _respond("invalid")
    return defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    if _is_api(request):
        return _respond("forbidden")
    return defaults.permission_denied(request, exception)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    if _is_api(request):
        return _respond("not_found")
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponseBase:
    """Answer 507 where the disk is full, else 500. Django has logged the exception and is still handling it."""
    is_full = is_disk_full(sys.exc_info()[1])
    if _is_api(request):
        return _respond("storage_full" if is_full else "server_error")
    if is_full:
        return HttpResponse(loader.get_template("507.html").render(), status=HTTPStatus.INSUFFICIENT_STORAGE)
    return defaults.server_error(request)


def _is_api(request: HttpRequest) -> bool:
    return request.path.startswith("/api/")


def _respond(code: str) -> JsonResponse:
    return JsonResponse(describe(code), status=status_of(code))
