from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests import factories
from tests.voices.api.requesting import URL
from voices import tasks


class TestStatus:
    def test_tells_step_progress_and_error(self, alices_client: Client, alice: User) -> None:
        profile = factories.upload_voice(alice)
        factories.set_job(profile, "build", step="clip", progress=0.5, error="no_speech")

        status = alices_client.get(f"{URL}/{profile.pk}/status").json()

        assert status == {
            "state": "pending",
            "step": "clip",
            "step_index": 3,
            "step_count": 5,
            "progress": 0.5,
            "error": {"code": "no_speech", "detail": status["error"]["detail"]},
            "similarity": None,
            "fitting": {"state": "none", "progress": 0.0, "similarity": None},
        }

    def test_of_a_failed_voice_can_be_tried_again(self, alices_client: Client, alice: User) -> None:
        profile = factories.upload_voice(alice)

        assert alices_client.post(f"{URL}/{profile.pk}/retry").status_code == 409
        factories.set_job(profile, "build", state="failed", error="no_speech")

        response = alices_client.post(f"{URL}/{profile.pk}/retry")
        assert (response.status_code, response.json()["state"], response.json()["error"]) == (202, "pending", None)


class TestFit:
    def test_is_started_told_and_cancelled(
        self, alices_client: Client, alice: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tasks.fit_style, "run", lambda *, voice_profile_id: None)
        profile = factories.create_voice_profile(owner=alice)
        address = f"{URL}/{profile.pk}"

        started = alices_client.post(f"{address}/fit")
        assert (started.status_code, started.json()["fitting"]["state"]) == (202, "queued")

        factories.set_job(profile, "fit", state="running", progress=0.4)
        running = {"state": "running", "progress": 0.4, "similarity": None}
        for told in (f"{address}/status", address):
            assert alices_client.get(told).json()["fitting"] == running
        (listed,) = alices_client.get(f"{URL}?scope=own").json()["results"]
        assert (listed["fitting"], listed["state"], listed["progress"]) == (running, "ready", 1.0)

        cancelled = alices_client.delete(f"{address}/fit")
        assert (cancelled.status_code, cancelled.json()["fitting"]["state"]) == (202, "cancelled")
