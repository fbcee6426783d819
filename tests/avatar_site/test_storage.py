"""Everything that is a file, in a bucket: the real client, over HTTP, against a server in a process of its own."""

from __future__ import annotations

import datetime as dt
import io
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from avatar_site.lib import inference_client
from avatar_site.lib.stored_files import StorageUnavailable, get_site_storage
from conversations.archive import write_archive
from conversations.orphans import remove_orphans
from tests import factories, sounds
from tests.fakes import make_inference
from tests.s3 import BUCKET, S3Server
from tests.seaweed import OWNER, SeaweedServer
from voices import files, services
from voices.build import job as build_job


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3") / "log")
    yield server
    server.stop()


@pytest.fixture
def bucket(server: S3Server, settings: Settings, media_root: Path) -> Iterator[S3Server]:
    server.empty()
    settings.STORAGES = settings.STORAGES | {"default": server.as_storage()}
    yield server
    assert not media_root.exists(), "a file went to the disk"


@pytest.fixture
def broken(bucket: S3Server, settings: Settings) -> S3Server:
    """A bucket that was removed."""
    settings.STORAGES = settings.STORAGES | {"default": bucket.as_storage(bucket_name="no-such-bucket")}
    return bucket


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    server = SeaweedServer(tmp_path_factory.mktemp("seaweed"))
    yield server
    server.stop()


class TestBucket:
    def test_keeps_a_file_under_the_sites_prefix(self, bucket: S3Server) -> None:
        name = default_storage.save("voices/1/a.flac", ContentFile(b"fLaC"))

        assert name == "voices/1/a.flac"
        assert bucket.list_keys() == ["site/voices/1/a.flac"]
        with default_storage.open(name) as file:
            assert (file.read(), file.name) == (b"fLaC", name)
        assert default_storage.size(name) == 4
        assert default_storage.listdir("voices") == (["1"], [])
        assert default_storage.listdir("voices/1") == ([], ["a.flac"])
        assert abs(default_storage.get_modified_time(name) - timezone.now()) < dt.timedelta(minutes=1)

    def test_gives_nobody_else_access(self, bucket: S3Server) -> None:
        default_storage.save("a", ContentFile(b"x"))

        grants = bucket.client.get_object_acl(Bucket=BUCKET, Key="site/a")["Grants"]
        assert [grant["Permission"] for grant in grants] == ["FULL_CONTROL"]
        assert "URI" not in grants[0]["Grantee"]

    def test_overwrites_nothing(self, bucket: S3Server) -> None:
        first = default_storage.save("a", ContentFile(b"1"))
        second = default_storage.save("a", ContentFile(b"2"))

        assert first != second
        assert bucket.read("site/a") == b"1"

    def test_deletes_twice(self, bucket: S3Server) -> None:
        name = default_storage.save("a", ContentFile(b"x"))

        default_storage.delete(name)
        default_storage.delete(name)

        assert not default_storage.exists(name)
        assert bucket.list_keys() == []

    @pytest.mark.usefixtures("bucket")
    def test_says_that_there_is_no_such_file(self) -> None:
        for ask in (default_storage.open, default_storage.size, default_storage.get_modified_time):
            with pytest.raises(FileNotFoundError):
                ask("nothing")

    @pytest.mark.usefixtures("broken")
    def test_fails_as_files_do_when_there_is_no_such_bucket(self) -> None:
        for ask in (default_storage.open, default_storage.listdir):
            with pytest.raises(OSError, match="NoSuchBucket") as caught:
                ask("a")
            assert not isinstance(caught.value, FileNotFoundError)
        with pytest.raises(OSError, match="NoSuchBucket"):
            default_storage.save("a", ContentFile(b"x"))

    def test_fails_as_files_do_when_nobody_answers(self, server: S3Server, settings: Settings) -> None:
        nowhere = server.as_storage(endpoint_url="http://127.0.0.1:9")
        settings.STORAGES = settings.STORAGES | {"default": nowhere}

        with pytest.raises(OSError, match=r"127\.0\.0\.1:9"):
            default_storage.save("a", ContentFile(b"x"))

    def test_lists_all_files_and_tells_another_content(self, bucket: S3Server) -> None:
        for name in ("a/b.ogg", "ab/c.ogg"):
            default_storage.save(name, ContentFile(b"1234"))
        # As consoles make a folder; and what is not the site's.
        bucket.client.put_object(Bucket=BUCKET, Key="site/a/", Body=b"")
        bucket.client.put_object(Bucket=BUCKET, Key="sites/other.ogg", Body=b"")
        before = {entry.name: entry for entry in get_site_storage().list_entries()}

        default_storage.delete("a/b.ogg")
        default_storage.save("a/b.ogg", ContentFile(b"4321"))
        after = {entry.name: entry for entry in get_site_storage().list_entries()}

        assert sorted(after) == ["a/b.ogg", "ab/c.ogg"]
        assert [name for name in after if after[name] != before[name]] == ["a/b.ogg"]
        assert [entry.name for entry in get_site_storage().list_entries("a")] == ["a/b.ogg"]

    def test_lists_more_than_a_page(self, bucket: S3Server) -> None:
        for number in range(1003):
            bucket.client.put_object(Bucket=BUCKET, Key=f"site/{number:04}", Body=b"")

        assert len(list(get_site_storage().list_entries())) == 1003

    def test_lists_without_a_prefix(self, bucket: S3Server, settings: Settings) -> None:
        settings.STORAGES = settings.STORAGES | {"default": bucket.as_storage(location="")}
        default_storage.save("a/b.ogg", ContentFile(b"1"))

        assert [entry.name for entry in get_site_storage().list_entries()] == ["a/b.ogg"]

    def test_is_given_a_file_of_this_disk(self, bucket: S3Server, tmp_path: Path) -> None:
        path = tmp_path / "source"
        path.write_bytes(b"fLaC")

        get_site_storage().add_file("a/b.flac", path)

        assert bucket.read("site/a/b.flac") == b"fLaC"

    @pytest.mark.usefixtures("broken")
    def test_that_is_away_lists_nothing(self) -> None:
        with pytest.raises(StorageUnavailable, match="NoSuchBucket"):
            list(get_site_storage().list_entries())

    @pytest.mark.usefixtures("bucket")
    def test_is_not_written_to_by_open(self) -> None:
        with pytest.raises(ValueError, match="written by save"):
            default_storage.open("a", "wb")


@pytest.mark.django_db(transaction=True)
class TestSignatures:
    """Of every request, as SeaweedFS checks them; the other tests' server takes any."""

    def set_up(self, server: SeaweedServer, settings: Settings, bucket: str, keys: tuple[str, str]) -> None:
        options = {"bucket_name": bucket, "location": "site", **server.make_settings(keys)}
        settings.STORAGES = settings.STORAGES | {
            "default": {"BACKEND": "avatar_site.storage.Bucket", "OPTIONS": options}
        }

    def test_are_made_with_the_secret(self, seaweed: SeaweedServer, settings: Settings) -> None:
        bucket = seaweed.make_bucket()
        self.set_up(seaweed, settings, bucket, OWNER)

        name = default_storage.save("voices/1/聲音 a+b.flac", ContentFile(b"fLaC"))
        default_storage.save(name, ContentFile(b"other"))
        with default_storage.open(name) as file:
            content = file.read()
        entries = list(get_site_storage().list_entries("voices"))
        size = default_storage.size(name)
        for entry in entries:
            default_storage.delete(entry.name)

        assert (content, size, len(entries)) == (b"fLaC", 4, 2)
        assert seaweed.list_keys(bucket) == []
        with pytest.raises(FileNotFoundError):
            default_storage.open(name)

    def test_of_another_secret_are_refused(self, seaweed: SeaweedServer, settings: Settings) -> None:
        bucket = seaweed.make_bucket()
        self.set_up(seaweed, settings, bucket, (OWNER[0], "another"))

        for ask in (
            lambda: default_storage.save("a", ContentFile(b"x")),
            lambda: default_storage.open("a"),
            lambda: default_storage.delete("a"),
            lambda: list(get_site_storage().list_entries()),
        ):
            with pytest.raises(OSError, match=r"SignatureDoesNotMatch|403") as caught:
                ask()
            assert not isinstance(caught.value, FileNotFoundError)
        assert seaweed.list_keys(bucket) == []


class TestVoices:
    def test_live_and_die_in_a_bucket(
        self, alice: User, alices_client: Client, bucket: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inference = make_inference("今天天氣很好，我們去公園走走。", ms_per_character=60)
        monkeypatch.setattr(inference_client, "get_inference", lambda: inference)
        cache.clear()
        profile = factories.upload_voice(alice)
        services.add_recording(
            profile=profile, audio=sounds.encode(sounds.make_speech(7.0), "mp3"), attestation="own_voice"
        )
        build_job.build(voice_profile_id=profile.pk, inference=inference)
        profile.refresh_from_db()
        services.preview(profile=profile, user=alice, text="你好")

        assert profile.state == "ready"
        folder = f"site/voices/{alice.pk}/{profile.pk}/"
        assert [key.startswith(folder) for key in bucket.list_keys()] == [True] * 4
        first = profile.recordings.oldest_first()[0]
        answer = alices_client.get(f"/api/voice-profile/{profile.pk}/audio", headers={"Range": "bytes=0-3"})
        assert (answer.status_code, answer.content) == (206, b"fLaC")
        with zipfile.ZipFile(io.BytesIO(services.export_voice_profile(profile=profile))) as archive:
            kept = [archive.read(name) for name in archive.namelist() if name.endswith(".flac")]
        assert bucket.read(f"site/{first.audio.name}") in kept

        services.delete_voice_profile(profile=profile)
        assert bucket.list_keys() == []

    def test_that_cannot_be_stored_are_refused_in_words(self, alices_client: Client, broken: S3Server) -> None:
        audio = ContentFile(sounds.encode(sounds.make_speech(6.0), "wav"), name="me.wav")

        answer = alices_client.post(
            "/api/voice-profile", {"name": "Me", "audio": audio, "consent_attestation": "own_voice"}
        )

        assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
        assert alices_client.get("/api/voice-profiles?owner=me").json()["count"] == 14  # the stock voices
        assert broken.list_keys() == []

    @pytest.mark.django_db
    def test_files_without_a_row_are_found(self, bucket: S3Server) -> None:
        default_storage.save(f"voices/7/{uuid.uuid4()}/lost.flac", ContentFile(b"fLaC"))

        assert files.delete_orphans(now=timezone.now()) == 0  # young: it may be about to get one
        assert files.delete_orphans(now=timezone.now() + dt.timedelta(hours=2)) == 1
        assert bucket.list_keys() == []


@pytest.mark.django_db(transaction=True)
class TestConversations:
    def test_live_and_die_in_a_bucket(self, alice: User, alices_client: Client, bucket: S3Server) -> None:
        flac = factories.make_flac()
        conversation = factories.create_conversation(alice)
        turn = factories.create_turn(conversation, audio=flac)

        assert [bucket.read(key) for key in bucket.list_keys()] == [flac]
        url = f"/api/conversations/{conversation.pk}/turns/{turn.pk}/audio"
        answer = alices_client.get(url, headers={"Range": "bytes=4-7"})
        assert (answer.status_code, answer.content) == (206, flac[4:8])

        archive_bytes = b"".join(write_archive([conversation.pk]))
        with zipfile.ZipFile(io.BytesIO(archive_bytes)) as archive:
            assert [archive.read(name) for name in archive.namelist() if name.endswith(".flac")] == [flac]

        assert alices_client.delete(f"/api/conversations/{conversation.pk}").status_code in (200, 204)
        assert bucket.list_keys() == []

    def test_files_without_rows_and_rows_without_files_are_found(self, alice: User, bucket: S3Server) -> None:
        conversation = factories.create_conversation(alice)
        turn, kept = (factories.create_turn(conversation, audio=factories.make_flac()) for _ in range(2))
        bucket.client.delete_object(Bucket=BUCKET, Key=f"site/{turn.audio_name}")
        lost = default_storage.save(f"conversations/{uuid.uuid4()}/lost.flac", ContentFile(b"fLaC"))

        found = remove_orphans(now=timezone.now() + dt.timedelta(days=1))

        assert (found.sweep.files, list(found.turns)) == ([lost], [turn.pk])
        assert bucket.list_keys() == [f"site/{kept.audio_name}"]


class TestSettings:
    @staticmethod
    def start(**environment: str) -> subprocess.CompletedProcess[str]:
        program = "from django.conf import settings as s; print(s.STORAGES['default'])"
        return subprocess.run(
            [sys.executable, "-c", program],
            cwd=django_settings.BASE_DIR,
            env={
                "DJANGO_SETTINGS_MODULE": "avatar_site.settings.prod",
                "AVATAR_ENV_FILE": "",
                "AVATAR_SECRET_KEY": "for-tests-only-" * 5,
                "AVATAR_STORAGE": "s3",
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    def test_name_the_bucket(self) -> None:
        done = self.start(AVATAR_S3_BUCKET="sounds", AVATAR_S3_ENDPOINT_URL="https://s3.example.tw")

        assert "'bucket_name': 'sounds'" in done.stdout
        assert "'endpoint_url': 'https://s3.example.tw'" in done.stdout
        assert "'region_name': None" in done.stdout

    def test_without_a_bucket_stop_the_start(self) -> None:
        assert "AVATAR_S3_BUCKET is not set: AVATAR_STORAGE=s3 needs it" in self.start().stderr
