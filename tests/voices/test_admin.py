from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from tests import factories
from voices.admin import VoiceProfileForm
from voices.models import VoiceProfile

LIST = "/admin/voices/voiceprofile/"


def act(client: Client, action: str, *profiles: VoiceProfile) -> None:
    response = client.post(LIST, {"action": action, "_selected_action": [str(profile.pk) for profile in profiles]})
    assert response.status_code == 302


class TestVoiceProfileAdmin:
    def test_lists_owner_state_size_similarity_and_last_use(self, operators_client: Client, alice: User) -> None:
        profile = factories.upload_voice(alice, name="Hers")
        VoiceProfile.objects.filter(pk=profile.pk).update(similarity=0.7134)

        page = operators_client.get(LIST).content.decode()

        for words in ("Hers", "alice", "0.71", "KB"):
            assert words in page

    def test_shows_the_consent(self, operators_client: Client, alice: User) -> None:
        profile = factories.upload_voice(alice)

        page = operators_client.get(f"{LIST}{profile.pk}/change/").content.decode()

        assert profile.consent is not None
        assert profile.consent.text_sha256 in page

    def test_makes_no_voice(self, operators_client: Client) -> None:
        assert operators_client.get(f"{LIST}add/").status_code == 403

    def test_disables_enables_and_rebuilds(self, operators_client: Client, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice)

        for action, state in (("disable", "disabled"), ("enable", "ready"), ("rebuild", "pending")):
            act(operators_client, action, profile)
            profile.refresh_from_db()
            assert profile.state == state
        assert LogEntry.objects.filter(object_id=str(profile.pk)).count() == 3

    def test_does_not_rebuild_a_disabled_voice(self, operators_client: Client, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice, availability="disabled")

        data = {"action": "rebuild", "_selected_action": [str(profile.pk)]}
        page = operators_client.post(LIST, data, follow=True, headers={"accept-language": "en"}).content.decode()

        profile.refresh_from_db()
        assert profile.state == "disabled"
        assert "has been disabled by the operator" in page

    def test_says_when_it_cannot(self, operators_client: Client) -> None:
        stock = VoiceProfile.objects.get(engine_voice="af_heart")

        act(operators_client, "rebuild", stock)

        stock.refresh_from_db()
        assert stock.state == "ready"

    def test_deletes_for_good(self, operators_client: Client, alice: User, media_root: Path) -> None:
        profile = factories.upload_voice(alice, name="Zanzibar-voice")

        operators_client.post(f"{LIST}{profile.pk}/delete/", {"post": "yes"})

        assert not VoiceProfile.objects.filter(pk=profile.pk).exists()
        assert [path for path in media_root.rglob("*") if path.is_file()] == []
        assert not LogEntry.objects.filter(object_repr__contains="Zanzibar").exists()


class TestChanging:
    def save(self, client: Client, profile: VoiceProfile, **fields: str) -> str:
        """Return the page, if it does not redirect to the list."""
        form = {"name": profile.name, "gender": profile.gender}
        inline = dict.fromkeys(("recordings-TOTAL_FORMS", "recordings-INITIAL_FORMS"), "0")
        response = client.post(f"{LIST}{profile.pk}/change/", form | inline | fields)
        profile.refresh_from_db()
        return response.content.decode()

    def test_shares_ones_own_alone(self, operators_client: Client, operator: User, alice: User) -> None:
        own = factories.create_voice_profile(owner=operator)
        hers = factories.create_voice_profile(owner=alice)

        for profile in (own, hers):
            self.save(operators_client, profile, is_shared="on")

        assert (own.is_shared, hers.is_shared) == (True, False)

    @pytest.mark.django_db
    def test_shares_nothing_without_the_right_to(self) -> None:
        clerk = factories.create_user("clerk", is_staff=True)
        clerk.user_permissions.add(
            *Permission.objects.filter(codename__in=["view_voiceprofile", "change_voiceprofile"])
        )
        client = Client()
        client.force_login(clerk)
        profile = factories.create_voice_profile(owner=clerk)

        self.save(client, profile, is_shared="on", name=" Other  name ")

        assert (profile.is_shared, profile.name) == (False, "Other name")

    def test_stops_sharing(self, operators_client: Client, alice: User) -> None:
        profile = factories.create_voice_profile(owner=alice, is_shared=True)

        act(operators_client, "unshare", profile)

        profile.refresh_from_db()
        assert not profile.is_shared

    def test_writes_over_nothing_that_a_worker_wrote(
        self, operators_client: Client, alice: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        profile = factories.create_voice_profile(owner=alice)
        construct = VoiceProfileForm.clean_name

        def write_in_between(form: VoiceProfileForm) -> str:
            VoiceProfile.objects.filter(pk=profile.pk).update(version=7)
            return construct(form)

        monkeypatch.setattr(VoiceProfileForm, "clean_name", write_in_between)
        self.save(operators_client, profile, gender="male", name="Other")

        assert (profile.name, profile.gender, profile.version) == ("Other", "male", 7)

    def test_leaves_stock_voices_as_they_are(self, operators_client: Client) -> None:
        stock = VoiceProfile.objects.get(engine_voice="af_heart")

        self.save(operators_client, stock, name="Mine", is_shared="on")

        assert (stock.name, stock.is_shared) == ("Heart", False)


class TestFilters:
    @pytest.mark.parametrize("query", ["clip_transcript__startswith=我", "recordings__transcript__contains=我", "id=1"])
    def test_are_those_that_are_offered(self, operators_client: Client, query: str) -> None:
        assert operators_client.get(f"{LIST}?{query}").status_code == 400
        assert operators_client.get(f"{LIST}?state__exact=ready&is_shared__exact=0").status_code == 200

    @pytest.mark.parametrize(
        ("state", "names"),
        [("pending", {"Waiting"}), ("ready", {"Ready", "Heart"}), ("failed", {"Failed"}), ("disabled", {"Disabled"})],
    )
    def test_finds_voices_by_their_state(
        self, operators_client: Client, alice: User, state: str, names: set[str]
    ) -> None:
        factories.upload_voice(alice, name="Waiting")
        factories.create_voice_profile(alice, name="Ready")
        factories.create_voice_profile(alice, name="Disabled", availability="disabled")
        factories.set_job(factories.create_voice_profile(alice, name="Failed"), "build", state="failed")

        page = operators_client.get(f"{LIST}?state__exact={state}&all=").content.decode()

        assert {name for name in ("Waiting", "Ready", "Failed", "Disabled", "Heart") if f">{name}<" in page} == names


class TestListening:
    def test_is_written_down_before_anything_is_heard(
        self, operators_client: Client, operator: User, alice: User
    ) -> None:
        recording = factories.upload_voice(alice).recordings.get()

        response = operators_client.get(f"{LIST}recordings/{recording.pk}/listen")

        assert (response.status_code, response.headers["Content-Type"]) == (200, "audio/flac")
        entry = LogEntry.objects.get()
        assert (entry.user, entry.object_id) == (operator, str(recording.profile_id))
        assert str(recording.pk) in entry.change_message

    def test_is_one_entry_however_often_a_player_seeks(
        self, operators_client: Client, operator: User, alice: User
    ) -> None:
        profile = factories.upload_voice(alice)
        recording, other = profile.recordings.get(), factories.upload_voice(alice).recordings.get()
        address = f"{LIST}recordings/{recording.pk}/listen"

        for start in (0, 100, 200):
            answer = operators_client.get(address, headers={"range": f"bytes={start}-"})
            assert answer.status_code == 206
        operators_client.get(f"{LIST}recordings/{other.pk}/listen")
        first, second = LogEntry.objects.order_by("pk")
        assert (str(recording.pk) in first.change_message, str(other.pk) in second.change_message) == (True, True)

        # An hour ago; another person; before the clock was set back.
        LogEntry.objects.update(action_time=timezone.now() - dt.timedelta(hours=1))
        operators_client.get(address)
        assert LogEntry.objects.count() == 3
        LogEntry.objects.update(user=alice)
        operators_client.get(address)
        assert LogEntry.objects.count() == 4
        LogEntry.objects.update(action_time=timezone.now() + dt.timedelta(hours=1))
        operators_client.get(address)
        assert LogEntry.objects.count() == 5

    def test_needs_a_right_of_its_own(self, alice: User) -> None:
        recording = factories.upload_voice(alice).recordings.get()
        clerk = factories.create_user("clerk", is_staff=True)
        clerk.user_permissions.add(*Permission.objects.filter(codename__in=["view_voiceprofile", "view_recording"]))
        client = Client()
        client.force_login(clerk)
        address = f"{LIST}recordings/{recording.pk}/listen"

        assert client.get(f"{LIST}{recording.profile_id}/change/").status_code == 200
        assert client.get(address).status_code == 403
        assert not LogEntry.objects.exists()
        clerk.user_permissions.add(Permission.objects.get(codename="listen_to_recording"))
        assert client.get(address).status_code == 200

    def test_is_as_reading_the_transcript(self, alice: User) -> None:
        recording = factories.upload_voice(alice).recordings.get()
        recording.transcript = "我有一個祕密"
        recording.save()
        clerk = factories.create_user("clerk", is_staff=True)
        clerk.user_permissions.add(*Permission.objects.filter(codename__in=["view_voiceprofile", "view_recording"]))
        client = Client()
        client.force_login(clerk)
        address = f"{LIST}{recording.profile_id}/change/"

        page = client.get(address).content.decode()
        assert "祕密" not in page
        assert "transcripts=1" not in page
        assert client.get(f"{address}?transcripts=1").status_code == 403
        assert not LogEntry.objects.exists()

        clerk.user_permissions.add(Permission.objects.get(codename="listen_to_recording"))
        page = client.get(address).content.decode()
        assert "祕密" not in page
        assert "transcripts=1" in page
        assert "祕密" in client.get(f"{address}?transcripts=1").content.decode()
        entry = LogEntry.objects.get()
        assert (entry.user, entry.object_id) == (clerk, str(recording.profile_id))
        assert "祕密" not in entry.object_repr + entry.change_message

    def test_has_no_other_way(self, operators_client: Client, alice: User) -> None:
        profile = factories.upload_voice(alice)

        page = operators_client.get(f"{LIST}{profile.pk}/change/").content.decode()

        assert profile.recordings.get().audio.name not in page
        assert operators_client.get(f"/api/voice-profiles/{profile.pk}/audio").status_code == 404
