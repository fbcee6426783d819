from __future__ import annotations

import io
from pathlib import Path

import pytest
import soundfile
from django.contrib.auth.models import User
from django.test import Client

from inference.interfaces import InferenceBusy, InferenceUnavailable, Quality
from tests import factories
from tests.fakes import FakeInference
from tests.voices.api.requesting import URL, patch, post
from voices.models import Preview, VoiceProfile


class TestPreview:
    def test_is_spoken_once_and_says_that_it_is_synthetic(
        self, alices_client: Client, inference: FakeInference
    ) -> None:
        stock = VoiceProfile.objects.get(engine_voice="zm_yunxi")

        first = post(alices_client, f"{URL}/{stock.pk}/preview", text="你好，很高興認識你。")
        again = post(alices_client, f"{URL}/{stock.pk}/preview", text=" 你好，很高興認識你。 ")

        assert first.status_code == 200
        assert first.json() | {"is_cached": True} == again.json()
        assert (first.json()["is_cached"], first.json()["quality"]) == (False, "fast")
        assert inference.tts.calls.finished == 1
        wav = alices_client.get(first.json()["audio_url"], headers={"accept": "audio/*"})
        assert wav.headers["Content-Type"] == "audio/wav"
        with soundfile.SoundFile(io.BytesIO(wav.content)) as sound:
            assert sound.frames / sound.samplerate * 1000 == pytest.approx(first.json()["duration_ms"], abs=1)
            assert "Synthetic speech" in sound.comment
            assert sound.software == "AVATAR"

    def test_is_only_for_the_user_who_requested_it(
        self, alices_client: Client, bobs_client: Client, inference: FakeInference
    ) -> None:
        stock = VoiceProfile.objects.get(engine_voice="zm_yunxi")
        audio_url = post(alices_client, f"{URL}/{stock.pk}/preview", text="秘密").json()["audio_url"]

        assert bobs_client.get(audio_url).status_code == 404

    def test_is_in_the_quality_that_was_asked_for_or_is_preferred(
        self, alices_client: Client, alice: User, inference: FakeInference
    ) -> None:
        address = f"{URL}/{VoiceProfile.objects.get(engine_voice='zm_yunxi').pk}/preview"
        patch(alices_client, "/api/voice-default", quality="high_quality")

        post(alices_client, address, text="你好")
        post(alices_client, address, text="你好", quality="fast")

        assert [options.quality for _, options in inference.tts.requests] == [Quality.HIGH_QUALITY, Quality.FAST]
        assert post(alices_client, address, text="你好", quality="best").json()["code"] == "quality_unknown"

    def test_is_synthesised_again_when_memory_was_short(
        self, alices_client: Client, alice: User, inference: FakeInference
    ) -> None:
        profile = factories.create_voice_profile(owner=alice, style=b"\1" * 1024)
        address = f"{URL}/{profile.pk}/preview"

        def hear() -> tuple[str, bool]:
            told = post(alices_client, address, text="你好", quality="high_quality").json()
            return told["quality"], told["is_cached"]

        inference.tts.is_short_of_memory = True
        assert hear() == ("fast", False)
        worse = Preview.objects.get().audio
        inference.tts.is_short_of_memory = False

        assert hear() == ("high_quality", False)
        assert hear() == ("high_quality", True)
        assert Preview.objects.get().audio != worse
        assert not worse.storage.exists(worse.name)

    def test_of_a_voice_without_high_quality_is_spoken_once(
        self, alices_client: Client, inference: FakeInference
    ) -> None:
        address = f"{URL}/{VoiceProfile.objects.get(engine_voice='zm_yunxi').pk}/preview"
        inference.tts.is_short_of_memory = True

        told = [post(alices_client, address, text="你好", quality="high_quality").json() for _ in range(2)]

        assert [(each["quality"], each["is_cached"]) for each in told] == [("fast", False), ("fast", True)]
        assert inference.tts.calls.started == 1

    def test_is_background_work(self, alices_client: Client, inference: FakeInference) -> None:
        stock = VoiceProfile.objects.get(engine_voice="zm_yunxi")

        post(alices_client, f"{URL}/{stock.pk}/preview", text="你好")

        ((_, options),) = inference.tts.requests
        assert options.is_background

    def test_speaks_in_the_style_of_the_voice(
        self, alices_client: Client, alice: User, inference: FakeInference
    ) -> None:
        profile = factories.create_voice_profile(owner=alice, engine_voice="zf_xiaoni", style=b"\1" * 1024)

        post(alices_client, f"{URL}/{profile.pk}/preview", text="你好")

        ((_, options),) = inference.tts.requests
        assert (options.voice, options.style) == ("zf_xiaoni", b"\1" * 1024)

    @pytest.mark.parametrize(
        ("text", "code"),
        [("", "text_required"), ("字" * 201, "text_too_long"), ("a\0b", "invalid"), ("a\udfffb", "invalid")],
    )
    def test_has_a_length(self, alices_client: Client, inference: FakeInference, text: str, code: str) -> None:
        stock = VoiceProfile.objects.get(engine_voice="zm_yunxi")

        answer = post(alices_client, f"{URL}/{stock.pk}/preview", text=text)

        assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (400, code, "text")

    @pytest.mark.parametrize(
        ("error", "status", "code"),
        [
            (InferenceUnavailable("away"), 503, "inference_unavailable"),
            (InferenceBusy("full"), 503, "inference_busy"),
        ],
    )
    def test_is_refused_without_an_engine_and_stores_nothing(
        self, alices_client: Client, inference: FakeInference, error: Exception, status: int, code: str
    ) -> None:
        stock = VoiceProfile.objects.get(engine_voice="zm_yunxi")
        inference.tts.fail_next(error)

        response = post(alices_client, f"{URL}/{stock.pk}/preview", text="你好")

        assert (response.status_code, response.json()["code"]) == (status, code)
        assert not Preview.objects.exists()

    def test_says_that_the_disk_is_full_and_keeps_nothing(
        self, alices_client: Client, inference: FakeInference, full_disk: None, media_root: Path
    ) -> None:
        stock = VoiceProfile.objects.get(engine_voice="zm_yunxi")

        response = post(alices_client, f"{URL}/{stock.pk}/preview", text="你好")

        assert (response.status_code, response.json()["code"]) == (507, "storage_full")
        assert not Preview.objects.exists()
        assert [path for path in media_root.rglob("*") if path.is_file()] == []

    def test_is_heard_no_more_once_the_voice_is_not_shared_or_disabled(
        self, alices_client: Client, bobs_client: Client, alice: User, inference: FakeInference
    ) -> None:
        profile = factories.create_voice_profile(owner=alice, is_shared=True)
        hers, his = (
            post(client, f"{URL}/{profile.pk}/preview", text="你好").json()["audio_url"]
            for client in (alices_client, bobs_client)
        )
        assert bobs_client.get(his).status_code == 200

        VoiceProfile.objects.update(is_shared=False)
        assert (alices_client.get(hers).status_code, bobs_client.get(his).status_code) == (200, 404)
        VoiceProfile.objects.filter(pk=profile.pk).update(is_shared=True, availability="disabled")
        assert (alices_client.get(hers).status_code, bobs_client.get(his).status_code) == (409, 404)

    def test_waits_until_the_voice_is_made(self, alices_client: Client, alice: User, inference: FakeInference) -> None:
        profile = factories.upload_voice(alice)

        response = post(alices_client, f"{URL}/{profile.pk}/preview", text="你好")

        assert (response.status_code, response.json()["code"]) == (409, "not_ready")
