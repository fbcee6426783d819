"""`/metrics`, for Prometheus."""

from __future__ import annotations

from http import HTTPStatus

from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST

from avatar_site.monitoring.exposition import expose
from avatar_site.operations.health import may_see_detail


@never_cache
@require_safe
async def metrics(request: HttpRequest) -> HttpResponse:
    """Answer to who brings AVATAR_METRICS_TOKEN (`Authorization: Bearer …`), and to operators who are logged in."""
    if not await may_see_detail(request):
        return HttpResponse(status=HTTPStatus.UNAUTHORIZED, headers={"WWW-Authenticate": "Bearer"})
    return HttpResponse(await expose(), content_type=CONTENT_TYPE_LATEST)
