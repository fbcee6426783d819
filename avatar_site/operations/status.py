"""Health of the database and the inference process, for probes and the operator."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from channels.db import database_sync_to_async
from django.db import DatabaseError, connection

from avatar_site.lib.inference_client import get_inference
from inference.interfaces import InferenceError, InferenceStatus

if TYPE_CHECKING:
    from inference.interfaces import Inference

#: How old a cached status of the inference process may be: probes come often, and from many.
MAX_AGE_S = 2.0
INFERENCE_TIMEOUT_S = 2.0
DATABASE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class InferenceReport:
    """The status of the inference process, or why there is none."""

    status: InferenceStatus | None
    reason: str = ""

    @property
    def is_ready(self) -> bool:
        return self.status is not None and self.status.is_ready


class InferenceProbe:
    """Reads the status of the inference process, at most once in `max_age_s` for all callers."""

    def __init__(self, inference: Inference, *, max_age_s: float = MAX_AGE_S) -> None:
        self._inference = inference
        self._max_age_s = max_age_s
        self._report: InferenceReport | None = None
        self._answered_at = 0.0
        self._asking = asyncio.Lock()

    async def report(self) -> InferenceReport:
        # Concurrent callers wait for one request instead of sending their own.
        async with self._asking:
            if self._report is None or time.monotonic() - self._answered_at >= self._max_age_s:
                self._report = await self._ask()
                self._answered_at = time.monotonic()
            return self._report

    async def _ask(self) -> InferenceReport:
        try:
            async with asyncio.timeout(INFERENCE_TIMEOUT_S):
                return InferenceReport(await self._inference.status())
        except TimeoutError:
            return InferenceReport(None, f"no answer within {INFERENCE_TIMEOUT_S:g} s")
        except InferenceError as error:
            return InferenceReport(None, str(error))


@cache
def get_inference_probe() -> InferenceProbe:
    return InferenceProbe(get_inference())


@database_sync_to_async
def _query_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchone()


async def check_database() -> str:
    """Return why the database does not answer; empty if it does."""
    try:
        async with asyncio.timeout(DATABASE_TIMEOUT_S):
            await _query_database()
    except TimeoutError:
        return f"no answer within {DATABASE_TIMEOUT_S:g} s"
    except DatabaseError as error:
        return type(error).__name__
    return ""


def describe_roles(report: InferenceReport) -> dict[str, str]:
    """Return the state of each role; empty when the process did not answer."""
    return {} if report.status is None else {role.role.value: role.state.value for role in report.status.roles}
