"""Recordings of real people and real engines, from the upload to an intelligible sentence."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from pytest_django import Settings

from avatar_site.lib import inference_client
from inference import offline
from inference.address import make_default_address
from inference.audio.decode import decode
from inference.audio.pcm import pcm_from_float
from inference.audio.resample import resample
from inference.client import InferenceClient
from inference.interfaces import InferenceError
from tests import sounds
from tests.inference.engines.speech import error_rate
from tests.recordings import Recording, read_recording
from voices import services, tasks
from voices.build import job as build_job
from voices.models import Preview, VoiceProfile
from voices.recordings.uploads import examine_upload

pytestmark = pytest.mark.engines

SENTENCE = "今天下午三點，我們在圖書館門口見面。"
OTHER_SENTENCE = "明天早上九點，我們搭火車去台南。"
ENGLISH_SENTENCE = "Let us meet in front of the library this afternoon."


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceClient]:
    """The inference process with real engines, except for the language model, which voices do not need."""
    read_recording("taiyi")  # skips the test where nothing has been fetched
    folder = tmp_path_factory.mktemp("inference")
    address = make_default_address(folder)
    environment = os.environ | {
        "AVATAR_PROFILE": "cpu",
        "AVATAR_LLM_ENGINES": "fake",
        "AVATAR_INFERENCE_ADDRESS": address,
    }
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "inference"], cwd=settings.BASE_DIR, env=environment, stdout=output, stderr=output
        )
    try:
        client = InferenceClient(address)
        _wait_until_ready(client, process, log)
        yield client
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_ready(client: InferenceClient, process: subprocess.Popen[bytes], log: Path) -> None:
    async def ask() -> bool:
        try:
            status = await client.status()
            return status.is_ready and all(role.state.value == "ready" for role in status.roles)
        except InferenceError:
            return False
        finally:
            await client.close()

    deadline = time.monotonic() + 120
    while not asyncio.run(ask()):
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(log.read_text(errors="replace")[-4000:])
        time.sleep(0.2)


def make_voice(owner: User, client: InferenceClient, audio: bytes) -> VoiceProfile:
    profile = services.create_voice_profile(owner=owner, name="A person", audio=audio, attestation="permission")
    build_job.build(voice_profile_id=profile.pk, inference=client)
    profile.refresh_from_db()
    assert (profile.state, profile.build_job.error) == ("ready", "")
    return profile


def one_after_the_other(*recordings: Recording) -> bytes:
    """Return recordings as one FLAC at 24 kHz."""
    pieces = [resample(each.samples, each.sample_rate_hz, 24_000) for each in recordings]
    return sounds.encode(np.concatenate(pieces), "flac")


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("db")
class TestRealPeople:
    @pytest.fixture(autouse=True)
    def use_engines(self, client: InferenceClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inference_client, "get_inference", lambda: client)

    @pytest.mark.parametrize("container", sounds.CONTAINERS)
    def test_are_taken_in_every_container(self, container: str) -> None:
        recording = read_recording("taiyi")

        examined = examine_upload(sounds.encode(recording.samples, container, rate_hz=recording.sample_rate_hz))

        assert examined.quality.speech_s > 3
        assert examined.quality.snr_db > 20

    def test_are_answered_in_a_voice_like_theirs_that_a_worker_fits(
        self, alice: User, client: InferenceClient, settings: Settings
    ) -> None:
        """With few steps the job of the worker may find nothing better; a stored style is better."""
        settings.AVATAR_VOICE_FITTING_STEPS = 4
        recording = read_recording("taiyi")

        profile = make_voice(alice, client, recording.path.read_bytes())

        assert (profile.language, profile.kind) == ("zh", "matched")
        kept = profile.recordings.get()
        assert kept.speaker_count == 1
        assert error_rate(recording.transcript, kept.transcript, "zh") < 0.4
        assert profile.similarity is not None
        assert profile.similarity > 0.5
        preview, _ = services.preview(profile=profile, user=alice, text=SENTENCE)
        assert error_rate(SENTENCE, hear(preview, client), "zh") < 0.2

        services.start_fitting(profile=profile)
        tasks.fit_style(voice_profile_id=str(profile.pk))

        profile.refresh_from_db()
        assert (profile.fit_job.state, profile.fit_job.progress) == ("done", 1.0)
        assert (profile.version == 2) == bool(profile.style)
        if profile.style:
            assert profile.fitting_similarity is not None
            assert profile.qualities == ["fast", "high_quality"]
            assert profile.fitting_similarity > profile.similarity - 0.1
        preview, _ = services.preview(profile=profile, user=alice, text=OTHER_SENTENCE, quality="high_quality")
        assert error_rate(OTHER_SENTENCE, hear(preview, client), "zh") < 0.2

    def test_are_told_apart_when_two_speak_in_one_recording(self, alice: User, client: InferenceClient) -> None:
        both = make_voice(alice, client, one_after_the_other(read_recording("kennedy"), read_recording("town")))

        assert "several_speakers" in both.recordings.get().warnings
        assert both.recordings.get().speaker_count == 2
        assert both.language == "en"
        preview, _ = services.preview(profile=both, user=alice, text=ENGLISH_SENTENCE)
        assert error_rate(ENGLISH_SENTENCE, hear(preview, client), "en") < 0.2


def hear(preview: Preview, client: InferenceClient) -> str:
    with preview.audio.open("rb") as file:
        clip = decode(file.read(), max_s=60, sample_rate_hz=16_000)
    understood, _ = asyncio.run(_recognise(client, pcm_from_float(clip.samples)))
    return understood


async def _recognise(client: InferenceClient, pcm: bytes) -> tuple[str, str]:
    try:
        return await offline.recognise(client.stt, pcm)
    finally:
        await client.close()
