from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from realtime.logins import Login, read_login
from realtime.watch import Check, check
from tests import factories
from voices.models import VoiceProfile

pytestmark = pytest.mark.django_db


@pytest.fixture
def profile(alice: User) -> VoiceProfile:
    return factories.create_voice_profile(owner=alice, version=3)


def make_login(user: User) -> Login:
    client = Client()
    client.force_login(user)
    session: Any = client.session
    return read_login(user, session)


class TestCheck:
    @pytest.mark.parametrize("has_voice", [False, True])
    def test_costs_two_queries(self, alice: User, profile: VoiceProfile, has_voice: bool) -> None:
        login = make_login(alice)

        with CaptureQueriesContext(
            connection,
        ) as queries:
            found = check(login, profile.pk if has_voice else None)

        assert found == Check(True, 3 if has_voice else None)
        assert len(queries) == 2

    def test_has_no_version_of_a_voice_that_is_gone_or_may_not_be_used(
        self, alice: User, bob: User, profile: VoiceProfile
    ) -> None:
        voices = VoiceProfile.objects.filter(pk=profile.pk)
        alices, bobs = read_login(alice, None), read_login(bob, None)
        assert check(bobs, profile.pk) == Check(True, None)
        voices.update(is_shared=True)
        assert check(bobs, profile.pk) == Check(True, 3)

        voices.update(availability="deleting")
        assert check(alices, profile.pk) == Check(True, None)
        voices.delete()
        assert check(alices, profile.pk) == Check(True, None)

    def test_fails_with_the_login(self, alice: User, profile: VoiceProfile) -> None:
        login = make_login(alice)
        alice.set_password("something else entirely")
        alice.save()

        assert not check(login, profile.pk).is_login_valid
