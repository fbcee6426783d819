from datetime import timedelta

import pytest
from celery.schedules import crontab
from django.conf import settings
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from avatar_site.celery import app
from avatar_site.operations import tasks
from tests import factories


@pytest.mark.django_db
class TestClearExpiredLogins:
    def test_removes_those_and_no_others(self, client: Client) -> None:
        client.force_login(factories.create_user())
        Session.objects.create(session_key="old", session_data="", expire_date=timezone.now() - timedelta(days=1))

        tasks.clear_expired_logins.delay()

        assert Session.objects.get().session_key == client.session.session_key


class TestSchedule:
    def test_names_tasks_that_exist(self) -> None:
        app.loader.import_default_modules()

        assert {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()} <= set(app.tasks)

    @pytest.mark.parametrize("name", ["clear-expired-logins", "purge-expired", "remove-orphans"])
    def test_does_what_is_daily_at_half_past_three_at_night(self, name: str) -> None:
        assert app.conf.beat_schedule[name]["schedule"] == crontab(hour=3, minute=30)
        # Where people are, not in London.
        assert str(app.timezone) == settings.TIME_ZONE
