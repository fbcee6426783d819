from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection

from tests import factories
from voices.leases import FittingClaim
from voices.models import VoiceProfile


@pytest.mark.django_db(transaction=True)
class TestFittingClaim:
    def test_is_taken_by_one_of_two_at_once(self, alice: User) -> None:
        profiles = [factories.create_voice_profile(alice, fitting_state="queued") for _ in range(2)]
        both_looked = threading.Barrier(2, timeout=10)

        def take(profile: VoiceProfile) -> FittingClaim | None:
            has_waited = False

            def wait_for_the_other(execute: Any, sql: str, *arguments: Any) -> Any:
                nonlocal has_waited
                if sql.startswith(("BEGIN", "UPDATE")) and not has_waited:
                    has_waited = True
                    both_looked.wait()
                return execute(sql, *arguments)

            try:
                with connection.execute_wrapper(wait_for_the_other):
                    return FittingClaim.take(profile.pk)
            finally:
                connection.close()

        with ThreadPoolExecutor(2) as threads:
            claims = list(threads.map(take, profiles))

        assert sorted(claim is None for claim in claims) == [False, True]
        states = VoiceProfile.objects.filter(owner=alice).values_list("fitting_state", flat=True)
        assert sorted(states) == ["queued", "running"]

    def test_is_one_by_the_databases_own_rule(self, alice: User) -> None:
        factories.create_voice_profile(alice, fitting_state="running")

        with pytest.raises(IntegrityError):
            factories.create_voice_profile(alice, fitting_state="running")
