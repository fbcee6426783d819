from __future__ import annotations

import itertools
import os
import pickle
from collections import OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray

from inference.audio.pcm import pcm_from_float
from inference.audio.resample import resample
from inference.config import InferenceConfig
from inference.interfaces import InferenceError
from inference.models.store import ModelError
from tests import recordings
from tests.inference.engines.speech import fan, silence, white_noise

onnxruntime = pytest.importorskip("onnxruntime")
ge2e_graph = pytest.importorskip("inference.engines.ge2e_graph")
ge2e_onnx = pytest.importorskip("inference.engines.ge2e_onnx")

BANDS, HIDDEN, VALUES = 5, 8, 6


# --- a file as torch wrote it before version 1.6, of small random weights ---


class FloatStorage:
    """Pickled by its name, as torch's is."""


class _Pickler(pickle.Pickler):
    def persistent_id(self, thing: Any) -> Any:
        return thing if isinstance(thing, tuple) and thing and thing[0] == "storage" else None


class _Tensor:
    def __init__(self, key: str, values: NDArray[np.float32]) -> None:
        self.key, self.values = key, values

    def __reduce__(self) -> Any:
        storage = ("storage", FloatStorage, self.key, "cpu", self.values.size, None)
        strides = tuple(each // 4 for each in self.values.strides)
        return _rebuild_tensor_v2, (storage, 0, self.values.shape, strides, False, OrderedDict())


def _rebuild_tensor_v2(*arguments: Any) -> None:
    raise AssertionError("nothing is rebuilt here")


FloatStorage.__module__ = "torch"
_rebuild_tensor_v2.__module__ = "torch._utils"


@pytest.fixture
def as_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pickle find the two names where torch has them."""
    import sys
    import types

    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage, torch._utils, utils._rebuild_tensor_v2 = (  # type: ignore[attr-defined]
        FloatStorage,
        utils,
        _rebuild_tensor_v2,
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def write_torch_file(path: Path, content: Any, tensors: list[_Tensor]) -> None:
    with path.open("wb") as file:
        for part in (ge2e_graph.MAGIC, 1001, {"little_endian": True}):
            pickle.dump(part, file, protocol=2)
        _Pickler(file, protocol=2).dump(content)
        pickle.dump([tensor.key for tensor in tensors], file, protocol=2)
        for tensor in tensors:
            file.write(tensor.values.size.to_bytes(8, "little") + tensor.values.tobytes())


@pytest.fixture
def weights() -> dict[str, NDArray[np.float32]]:
    generator = np.random.default_rng(1)
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (VALUES, HIDDEN), "linear.bias": (VALUES,)}
    for layer in range(3):
        shapes |= {
            f"lstm.weight_ih_l{layer}": (4 * HIDDEN, BANDS if layer == 0 else HIDDEN),
            f"lstm.weight_hh_l{layer}": (4 * HIDDEN, HIDDEN),
            f"lstm.bias_ih_l{layer}": (4 * HIDDEN,),
            f"lstm.bias_hh_l{layer}": (4 * HIDDEN,),
        }
    return {name: generator.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def torch_file(tmp_path: Path, weights: dict[str, NDArray[np.float32]], as_torch: None) -> Path:
    tensors = {name: _Tensor(str(key), values) for key, (name, values) in enumerate(weights.items())}
    path = tmp_path / ge2e_graph.SOURCE
    write_torch_file(path, {"step": 7, "model_state": OrderedDict(tensors)}, list(tensors.values()))
    return path


class TestReadWeights:
    def test_reads_what_torch_wrote(self, torch_file: Path, weights: dict[str, NDArray[np.float32]]) -> None:
        read = ge2e_graph.read_weights(torch_file)

        assert read.keys() == weights.keys()
        assert all(np.array_equal(read[name], weights[name]) for name in weights)

    def test_runs_nothing_that_a_file_asks_for(self, tmp_path: Path) -> None:
        class Harm:
            def __reduce__(self) -> Any:
                return os.mkdir, (str(tmp_path / "harm"),)

        path = tmp_path / "harmful.pt"
        write_torch_file(path, Harm(), [])

        with pytest.raises(ge2e_graph.WeightsError, match=r"it asks for posix\.mkdir"):
            ge2e_graph.read_weights(path)
        assert not (tmp_path / "harm").exists()

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04", pickle.dumps(5), b"\x80\x02K\x01."])
    def test_says_that_it_is_another_file(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "other.pt"
        path.write_bytes(content)

        with pytest.raises(ge2e_graph.WeightsError, match=r"other\.pt"):
            ge2e_graph.read_weights(path)

    def test_says_that_it_is_cut_off(self, torch_file: Path) -> None:
        torch_file.write_bytes(torch_file.read_bytes()[:-10])

        with pytest.raises(ge2e_graph.WeightsError):
            ge2e_graph.read_weights(torch_file)


class TestConvert:
    def test_computes_what_torch_does(self, torch_file: Path, weights: dict[str, NDArray[np.float32]]) -> None:
        """The real weights, run by torch itself and by this graph, differed by 5e-7 at most."""
        ge2e_graph.convert(torch_file.parent)
        session = onnxruntime.InferenceSession(str(torch_file.parent / ge2e_graph.ENCODER))
        mels = np.random.default_rng(2).normal(size=(3, 11, BANDS)).astype(np.float32)

        (embeddings,) = session.run(None, {"mels": mels})

        assert embeddings == pytest.approx(embed_as_torch_does(mels, weights), abs=1e-6)
        assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1)


def embed_as_torch_does(mels: NDArray[Any], weights: dict[str, NDArray[np.float32]]) -> NDArray[Any]:
    """`torch.nn.LSTM` by its documentation, with its order of gates, then linear, ReLU, unit length."""

    def sigmoid(values: NDArray[Any]) -> NDArray[Any]:
        return 1 / (1 + np.exp(-values))

    inputs = mels.astype(np.float64)
    for layer in range(3):
        hidden = cell = np.zeros((len(mels), HIDDEN))
        outputs = []
        for step in range(mels.shape[1]):
            gates = (
                inputs[:, step] @ weights[f"lstm.weight_ih_l{layer}"].T
                + weights[f"lstm.bias_ih_l{layer}"]
                + hidden @ weights[f"lstm.weight_hh_l{layer}"].T
                + weights[f"lstm.bias_hh_l{layer}"]
            )
            in_gate, forget_gate, new, out_gate = np.split(gates, 4, axis=1)
            cell = sigmoid(forget_gate) * cell + sigmoid(in_gate) * np.tanh(new)
            hidden = sigmoid(out_gate) * np.tanh(cell)
            outputs.append(hidden)
        inputs = np.stack(outputs, axis=1)
    raw = np.maximum(0, hidden @ weights["linear.weight"].T + weights["linear.bias"])
    return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True))


class TestFrontEnd:
    def test_has_filters_of_equal_area(self) -> None:
        filters = ge2e_onnx.MEL_FILTERS

        assert filters.shape == (40, 201)
        # Height times half the width is one; the narrow ones at the bottom fall between the spectrum's frequencies.
        assert filters[10:].sum(axis=1) * 40 == pytest.approx(1, rel=0.1)
        assert (np.diff(filters.argmax(axis=1)) > 0).all()

    def test_finds_a_tone_in_its_band(self) -> None:
        tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)

        mels = ge2e_onnx.compute_mels(tone)

        assert mels.shape == (101, 40)
        assert set(mels[5:-5].argmax(axis=1)) == {np.abs(ge2e_onnx.MEL_FILTERS[:, 25]).argmax()}

    def test_makes_the_quiet_louder_only(self) -> None:
        quiet, loud = np.full(100, 0.001, np.float32), np.full(100, 0.5, np.float32)

        assert ge2e_onnx.raise_volume(quiet) == pytest.approx(10 ** (-30 / 20))
        assert ge2e_onnx.raise_volume(loud) is loud
        assert ge2e_onnx.raise_volume(np.zeros(100, np.float32)).max() == 0

    def test_keeps_speech_and_a_moment_around_it(self) -> None:
        probabilities = np.zeros(30, np.float32)
        probabilities[[10, 11]] = 0.9

        kept = ge2e_onnx.keep_speech(np.repeat(np.arange(31, dtype=np.float32), 512)[:-100], probabilities)

        assert kept[::512].tolist() == list(range(7, 15))
        assert len(ge2e_onnx.keep_speech(np.ones(5120, np.float32), np.zeros(10, np.float32))) == 0

    @pytest.mark.parametrize(
        ("seconds", "starts"),
        [(0.5, [0]), (1.6, [0]), (1.7, [0]), (2.2, [0, 77]), (2.8, [0, 77, 154]), (5.0, [0, 77, 154, 231, 308])],
    )
    def test_cuts_into_parts_that_overlap(self, seconds: float, starts: list[int]) -> None:
        assert ge2e_onnx.compute_part_starts(int(seconds * 16_000)) == starts


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def encoder() -> AsyncIterator[Any]:
    config = InferenceConfig.from_env({**os.environ, "AVATAR_PROFILE": "cpu"})
    try:
        encoder = ge2e_onnx.create_encoder(model="ge2e-resemblyzer", config=config)
    except ModelError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    yield encoder
    await encoder.close()


@pytest.mark.engines
@pytest.mark.asyncio(loop_scope="module")
class TestPeople:
    async def test_sound_like_themselves_and_less_like_others(self, encoder: Any) -> None:
        halves: dict[str, list[NDArray[Any]]] = {}
        for recording in recordings.read_recordings():
            middle = len(recording.samples) // 2
            halves[recording.speaker] = [
                np.array((await encoder.embed(pcm_from_float(half), sample_rate_hz=recording.sample_rate_hz)).values)
                for half in (recording.samples[:middle], recording.samples[middle:])
            ]

        same = {speaker: float(one @ other) for speaker, (one, other) in halves.items()}
        different = [
            float(one @ other)
            for first, second in itertools.combinations(halves, 2)
            for one, other in itertools.product(halves[first], halves[second])
        ]
        # Measured: 0.80 to 0.93, and 0.33 to 0.64.
        assert min(same.values()) >= 0.75, same
        assert max(different) < 0.7
        assert all(np.linalg.norm(one) == pytest.approx(1) for pair in halves.values() for one in pair)

    async def test_sound_the_same_at_every_rate_and_loudness(self, encoder: Any) -> None:
        recording = recordings.read_recording("town")
        original = np.array((await encoder.embed(recording.microphone_pcm)).values)

        for samples, rate in (
            (recording.samples, 24_000),
            (resample(recording.samples, 24_000, 48_000), 48_000),
            (recording.samples * 0.05, 24_000),
            (np.pad(recording.samples, 3 * 24_000), 24_000),
        ):
            embedding = await encoder.embed(pcm_from_float(samples), sample_rate_hz=rate)
            assert float(original @ np.array(embedding.values)) > 0.95
            assert embedding.encoder == "ge2e-resemblyzer-1"

    @pytest.mark.parametrize("noise", [silence, white_noise, fan])
    async def test_are_not_found_in_noise(self, encoder: Any, noise: Any) -> None:
        with pytest.raises(InferenceError, match="no speech"):
            await encoder.embed(noise(4000))
