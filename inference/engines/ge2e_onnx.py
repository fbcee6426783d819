"""
Speaker embeddings with Resemblyzer's GE2E encoder on ONNX Runtime.

Recording → 16 kHz → gain, if it is quiet → long silences removed → mel bands → one embedding per overlapping part of
1.6 s → their mean. As in Resemblyzer, except that Silero finds the silences instead of webrtcvad.
"""

from __future__ import annotations

import asyncio
import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from inference.audio.levels import amplitude_from_db, measure_rms
from inference.audio.pcm import float_from_pcm
from inference.audio.resample import resample
from inference.config import InferenceConfig
from inference.engines.background_gate import BackgroundGate
from inference.engines.base import Engine
from inference.engines.ge2e_graph import ENCODER
from inference.engines.preemptible_onnx import run_preemptible
from inference.engines.priority_worker import Worker
from inference.interfaces import MICROPHONE_SAMPLE_RATE_HZ, REQUESTS_WAITING, InferenceError, SpeakerEmbedding
from inference.models.store import model_dir
from inference.voice_options import check_recording

#: Resemblyzer's, in samples of 16 kHz: window and step of the spectrum, frames per part, and parts per second.
WINDOW_SAMPLES = 400
STEP_SAMPLES = 160
MEL_BANDS = 40
PART_FRAMES = 160
PART_EVERY_FRAMES = round(MICROPHONE_SAMPLE_RATE_HZ / 1.3 / STEP_SAMPLES)
#: The last part counts when at least this share of it is there.
MIN_COVERAGE = 0.75
TARGET_DBFS = -30.0
#: Silero's window, and its context from the previous one.
VAD_SAMPLES = 512
VAD_CONTEXT_SAMPLES = 64
SPEECH_PROBABILITY = 0.5
#: Silence kept on both sides of speech, in windows of 32 ms.
KEPT_WINDOWS = 3
MIN_SPEECH_S = 0.3


def create_encoder(*, model: str, config: InferenceConfig) -> Ge2e:
    return Ge2e(model_dir(config.models_dir, model), threads=config.threads)


class Ge2e(Engine):
    """`SpeakerEncoder` on ONNX Runtime: one recording at a time, in its own thread."""

    device = "cpu"

    def __init__(self, folder: Path, *, threads: int) -> None:
        self.model_name = folder.name
        #: Stored with every embedding; changes when new embeddings cannot be compared with older ones.
        self.encoder = "ge2e-resemblyzer-1"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Waiting threads sleep: spinning ones would occupy the live calls' cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = ["CPUExecutionProvider"]
        self._encoder = onnxruntime.InferenceSession(str(folder / ENCODER), options, providers=providers)
        self._vad = onnxruntime.InferenceSession(str(_find_silero()), options, providers=providers)
        self._worker = Worker("ge2e")
        self.gate = BackgroundGate()

    async def warm_up(self) -> None:
        await self._worker.run(lambda: self._embed_parts(np.ones((1, PART_FRAMES, MEL_BANDS), np.float32)))

    @property
    def figures(self) -> dict[str, float]:
        """The number of steps that wait for the thread."""
        return {REQUESTS_WAITING: float(self._worker.waiting)}

    async def close(self) -> None:
        await asyncio.to_thread(self._worker.close)

    async def embed(self, pcm: bytes, *, sample_rate_hz: int = MICROPHONE_SAMPLE_RATE_HZ) -> SpeakerEmbedding:
        check_recording(pcm, sample_rate_hz)
        with self.gate.background_job() as job:
            values = await run_preemptible(self._worker, job, partial(self._embed, pcm, sample_rate_hz))
        return SpeakerEmbedding(tuple(values.tolist()), self.encoder)

    def _embed(self, pcm: bytes, sample_rate_hz: int, run_options: Any) -> NDArray[np.float64]:
        samples = raise_volume(resample(float_from_pcm(pcm), sample_rate_hz, MICROPHONE_SAMPLE_RATE_HZ))
        speech = keep_speech(samples, self._probabilities(samples, run_options))
        if len(speech) < MIN_SPEECH_S * MICROPHONE_SAMPLE_RATE_HZ:
            raise InferenceError("there is no speech in the recording")
        starts = compute_part_starts(len(speech))
        needed = (starts[-1] + PART_FRAMES) * STEP_SAMPLES
        mels = compute_mels(np.pad(speech, (0, max(0, needed - len(speech)))))
        parts = self._embed_parts(np.stack([mels[start : start + PART_FRAMES] for start in starts]), run_options)
        mean = parts.mean(axis=0, dtype=np.float64)
        return np.asarray(mean / np.linalg.norm(mean))

    def _embed_parts(self, mels: NDArray[np.float32], run_options: Any = None) -> NDArray[np.float32]:
        (embeddings,) = self._encoder.run(None, {"mels": mels}, run_options)
        return np.asarray(embeddings)

    def _probabilities(self, samples: NDArray[np.float32], run_options: Any) -> NDArray[np.float32]:
        """Return the probability of speech per whole window of `VAD_SAMPLES`."""
        windows = samples[: len(samples) // VAD_SAMPLES * VAD_SAMPLES].reshape(-1, VAD_SAMPLES)
        before = np.zeros((len(windows), VAD_CONTEXT_SAMPLES), np.float32)
        before[1:] = windows[:-1, -VAD_CONTEXT_SAMPLES:]
        state = np.zeros((1, 1, 128), np.float32)
        inputs = {"input": np.hstack([before, windows]), "h": state, "c": state}
        probabilities, _, _ = self._vad.run(None, inputs, run_options)
        return np.asarray(probabilities).ravel()


def _find_silero() -> Path:
    """Return the path of the VAD that faster-whisper ships, without importing the package."""
    package = importlib.util.find_spec("faster_whisper")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("faster-whisper, which ships Silero VAD, is not installed")
    return Path(package.origin).parent / "assets" / "silero_vad_v6.onnx"


def raise_volume(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Raise a quiet recording to -30 dB of full scale; return a louder one unchanged."""
    level = measure_rms(samples)
    wanted = amplitude_from_db(TARGET_DBFS)
    return samples if level == 0 or level >= wanted else (samples * (wanted / level)).astype(np.float32)


def keep_speech(samples: NDArray[np.float32], probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Remove silent windows, given the probability of speech per window, except for a margin around speech."""
    is_speech = probabilities >= SPEECH_PROBABILITY
    kept = np.convolve(is_speech, np.ones(2 * KEPT_WINDOWS + 1), mode="same") > 0 if is_speech.any() else is_speech
    whole = samples[: len(kept) * VAD_SAMPLES].reshape(-1, VAD_SAMPLES)
    return np.asarray(whole[kept].ravel())


def compute_part_starts(count: int) -> list[int]:
    """Return the first frame of each part of a recording of `count` samples: at least one part."""
    frames = -(-(count + 1) // STEP_SAMPLES)
    starts = list(range(0, max(1, frames - PART_FRAMES + PART_EVERY_FRAMES + 1), PART_EVERY_FRAMES))
    coverage = (count / STEP_SAMPLES - starts[-1]) / PART_FRAMES
    return starts[:-1] if coverage < MIN_COVERAGE and len(starts) > 1 else starts


def compute_mels(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the power per mel band, one row per 10 ms: librosa's `melspectrogram`, not its logarithm."""
    padded = np.pad(samples, WINDOW_SAMPLES // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::STEP_SAMPLES]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW_SAMPLES) / WINDOW_SAMPLES)
    power = np.abs(np.fft.rfft(frames * hann, axis=1)) ** 2
    return np.asarray(power @ MEL_FILTERS.T, np.float32)


def make_mel_filters() -> NDArray[np.float64]:
    """
    Return triangles of equal area over the spectrum's frequencies (bands, frequencies), on Slaney's scale.

    The scale is even up to 1 kHz and logarithmic above: Malcolm Slaney, Auditory Toolbox, 1998.
    """
    hz_of_mel = 200 / 3
    log_start_mel, log_step = 1000 / hz_of_mel, np.log(6.4) / 27
    top_mel = log_start_mel + np.log(MICROPHONE_SAMPLE_RATE_HZ / 2 / 1000) / log_step
    mels = np.linspace(0, top_mel, MEL_BANDS + 2)
    edges_hz = np.where(mels < log_start_mel, mels * hz_of_mel, 1000 * np.exp(log_step * (mels - log_start_mel)))
    frequencies_hz = np.fft.rfftfreq(WINDOW_SAMPLES, 1 / MICROPHONE_SAMPLE_RATE_HZ)
    lower, middle, upper = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rising, falling = (frequencies_hz - lower) / (middle - lower), (upper - frequencies_hz) / (upper - middle)
    return np.asarray(np.maximum(0, np.minimum(rising, falling)) * 2 / (upper - lower))


MEL_FILTERS = make_mel_filters()
