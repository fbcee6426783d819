from __future__ import annotations

import pytest

from inference import offline
from inference.interfaces import SynthesisOptions
from inference.offline import EngineSilent, compute_hearing_deadline_s, compute_speaking_deadline_s
from tests import fakes
from tests.fakes import FakeInference


class TestDeadlines:
    def test_grow_with_what_is_asked(self) -> None:
        second = bytes(2 * 16_000)

        assert compute_hearing_deadline_s(b"", 16_000) == offline.MAX_WAIT_S
        assert compute_hearing_deadline_s(60 * second, 16_000) == offline.MAX_WAIT_S + 180
        assert compute_speaking_deadline_s("字" * 60) == offline.MAX_WAIT_S + 120

    def test_leave_a_minute_for_live_calls_and_a_minute_for_other_background_work(self) -> None:
        assert offline.MAX_WAIT_S >= 120


@pytest.fixture
def inference() -> FakeInference:
    return fakes.make_inference("今天天氣很好，我們去公園走走。", ms_per_character=60)


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "MAX_WAIT_S", 0.01)
    monkeypatch.setattr(offline, "MAX_S_PER_HEARD_S", 0.0)
    monkeypatch.setattr(offline, "MAX_S_PER_CHARACTER", 0.0)


@pytest.mark.usefixtures("no_patience")
class TestEngineThatHangs:
    async def test_is_given_up_while_it_recognises(self, inference: FakeInference) -> None:
        inference.stt.recognition_s = 3600

        with pytest.raises(EngineSilent, match="recognise"):
            await offline.recognise(inference.stt, fakes.SPEECH)
        assert inference.active_calls == 0

    async def test_is_given_up_while_it_speaks(self, inference: FakeInference) -> None:
        inference.tts.real_time_factor = 3600

        with pytest.raises(EngineSilent, match="speak"):
            await offline.speak(inference.tts, ["你好"], SynthesisOptions())
        assert inference.active_calls == 0

    async def test_is_given_up_while_it_embeds(self, inference: FakeInference) -> None:
        inference.encoder.hold()

        with pytest.raises(EngineSilent, match="embed"):
            await offline.embed(inference.encoder, fakes.SPEECH, sample_rate_hz=16_000)
        assert inference.active_calls == 0
