import numpy as np
import pytest

from tests.sounds import RATE_HZ, make_speech
from voices.recordings.quality import RecordingQuality, measure_quality


def measure_speech(seconds: float = 12.0, **options: float) -> RecordingQuality:
    return measure_quality(make_speech(seconds, **options), RATE_HZ)  # type: ignore[arg-type]  # floats, as all its options


class TestJudge:
    def test_measures_the_duration_of_speech(self) -> None:
        quality = measure_speech(12.5)

        assert quality.duration_s == pytest.approx(12.5)
        # Half a second of every two and a half is a pause.
        assert quality.speech_s == pytest.approx(10.0, abs=1.0)
        assert (quality.refusal, quality.warnings) == ("", ())

    def test_measures_how_far_speech_stands_out_from_the_room(self) -> None:
        quiet_room = measure_speech()
        speech = make_speech(12.0)
        noisy = measure_quality(
            speech + np.random.default_rng(2).normal(scale=0.03, size=len(speech)).astype(np.float32), RATE_HZ
        )

        assert quiet_room.snr_db > 35
        assert 8 < noisy.snr_db < 15
        assert noisy.warnings == ("noisy",)

    def test_takes_music_of_no_pause_for_one_long_speech_or_noise_but_never_fails(self) -> None:
        t = np.arange(RATE_HZ * 10) / RATE_HZ
        assert measure_quality((0.3 * np.sin(2 * np.pi * 220 * t)).astype(np.float32), RATE_HZ).refusal == "audio_noisy"

    @pytest.mark.parametrize(
        ("samples", "refusal"),
        [
            (np.zeros(RATE_HZ * 10, np.float32), "audio_silent"),
            (np.zeros(0, np.float32), "audio_silent"),
            (np.full(RATE_HZ * 10, 0.5, np.float32), "audio_silent"),
            (make_speech(10.0, level=0.0005), "audio_silent"),
            (make_speech(2.0), "audio_too_short"),
            (np.pad(make_speech(2.0), (0, RATE_HZ * 10)), "audio_too_short"),
            (make_speech(90.0), "audio_too_long"),
            (np.clip(make_speech(10.0) * 20, -1, 1), "audio_clipped"),
            (np.random.default_rng(3).normal(scale=0.1, size=RATE_HZ * 10).astype(np.float32), "audio_noisy"),
        ],
        ids=[
            "silence",
            "nothing",
            "an offset",
            "whisper of a mouse",
            "short",
            "long silence",
            "long",
            "clipped",
            "noise",
        ],
    )
    def test_refuses(self, samples: np.ndarray, refusal: str) -> None:
        assert measure_quality(samples, RATE_HZ).refusal == refusal

    def test_warns_of_little_speech(self) -> None:
        assert measure_speech(6.0).warnings == ("short",)

    def test_does_not_take_a_peak_for_clipping(self) -> None:
        speech = make_speech(12.0)
        speech[::2000] = 1.0

        assert measure_quality(speech, RATE_HZ).clipped_share == 0.0
