from __future__ import annotations

import io
import uuid
from pathlib import Path

import pytest
import soundfile
from django.contrib.auth.models import User

from conversations import resynthesis
from conversations.models import Turn
from inference.interfaces import InferenceUnavailable, Quality
from tests import factories
from tests.fakes import FakeInference, make_inference
from voices.services import delete_voice_profile

FLAC = factories.make_flac()


@pytest.fixture
def inference() -> FakeInference:
    return make_inference()


@pytest.fixture
def turn(alice: User) -> Turn:
    return factories.create_turn(
        factories.create_conversation(alice),
        speaker="avatar",
        text="很高興認識你。今天天氣很好！",
        audio=FLAC,
        audio_duration_ms=100,
        quality="fast",
        voice_profile_id=factories.create_voice_profile(owner=alice, engine_voice="zm_yunxi").pk,
    )


def render(turn: Turn, inference: FakeInference) -> Turn:
    resynthesis.render(turn_id=turn.pk, inference=inference)
    turn.refresh_from_db()
    return turn


class TestRender:
    def test_replaces_the_sound_of_a_fast_answer(self, turn: Turn, inference: FakeInference, media_root: Path) -> None:
        turn = render(turn, inference)

        assert turn.quality == "high_quality"
        assert [text for text, _ in inference.tts.requests] == ["很高興認識你。", "今天天氣很好！"]
        options = inference.tts.requests[0][1]
        assert (options.voice, options.quality, options.is_background) == ("zm_yunxi", Quality.HIGH_QUALITY, True)
        (path,) = (path for path in media_root.rglob("*") if path.is_file())
        with turn.audio.open("rb") as file:
            audio = file.read()
        assert b"Synthetic" in audio
        assert turn.audio_bytes == len(audio)
        with soundfile.SoundFile(io.BytesIO(audio)) as sound:
            assert turn.audio_duration_ms == pytest.approx(sound.frames / sound.samplerate * 1000, abs=30)
        assert path == media_root / turn.audio.name

    def test_is_done_once(self, turn: Turn, inference: FakeInference) -> None:
        render(turn, inference)
        render(turn, inference)

        assert len(inference.tts.requests) == 2

    def test_leaves_it_where_memory_is_short(self, turn: Turn, inference: FakeInference) -> None:
        inference.tts.is_short_of_memory = True

        turn = render(turn, inference)

        with turn.audio.open("rb") as file:
            assert (turn.quality, file.read()) == ("fast", FLAC)

    def test_leaves_it_when_the_engines_are_away(self, turn: Turn, inference: FakeInference) -> None:
        inference.tts.fail_next(InferenceUnavailable("away"))

        assert render(turn, inference).quality == "fast"

    def test_speaks_in_no_voice_that_was_deleted(self, turn: Turn, inference: FakeInference) -> None:
        assert turn.voice_profile is not None
        delete_voice_profile(profile=turn.voice_profile)

        assert render(turn, inference).quality == "fast"
        assert inference.tts.requests == []

    def test_of_a_turn_that_is_gone_does_nothing(self, db: None, inference: FakeInference) -> None:
        resynthesis.render(turn_id=uuid.uuid4(), inference=inference)

        assert inference.tts.requests == []
