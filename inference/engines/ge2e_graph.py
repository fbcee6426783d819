"""
Converts Resemblyzer's weights into a graph for ONNX Runtime when they are fetched, without torch.

The network (GE2E, Wan et al. 2018, as Resemblyzer trained it): 40 mel bands → 3 LSTM layers of 256 → the last hidden
state → linear 256 → ReLU → unit length.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

SOURCE = "pretrained.pt"
ENCODER = "encoder.onnx"
LAYERS = 3
#: The first number of a file in torch's format of before version 1.6.
MAGIC = 0x1950A86A20F9469CFC6C

Weights = dict[str, NDArray[np.float32]]


class WeightsError(Exception):
    """The file is not the one that Resemblyzer ships."""


def convert(folder: Path, models_dir: Path | None = None) -> None:
    """Write `encoder.onnx` in place of `pretrained.pt`. Raises WeightsError."""
    weights = read_weights(folder / SOURCE)
    onnx.save(build(weights), folder / ENCODER)


def read_weights(path: Path) -> Weights:
    """
    Read `model_state` of a torch file without torch: pickles that describe the tensors, then their numbers.

    Unpickling creates dictionaries, numbers and arrays only; any other class is refused.
    """
    try:
        with path.open("rb") as file:
            magic = _Unpickler(file, {}).load()
            if magic != MAGIC:
                raise WeightsError(f"{path.name} is not in torch's older format")
            _Unpickler(file, {}).load()  # the version of the format
            _Unpickler(file, {}).load()  # sizes of the machine it was written on
            storages: dict[str, _Storage] = {}
            content = _Unpickler(file, storages).load()
            for key in _Unpickler(file, {}).load():
                storages[key].read(file)
        return {name: tensor.to_array() for name, tensor in content["model_state"].items()}
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise WeightsError(f"{path.name} cannot be read: {error}") from error


class _Storage:
    """An array of float32, stored at the end of the file."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.values: NDArray[np.float32] = np.zeros(0, np.float32)

    def read(self, file: BinaryIO) -> None:
        count = int.from_bytes(file.read(8), "little")
        if count != self.count:
            raise ValueError(f"{count} numbers where {self.count} belong")
        data = file.read(4 * count)
        self.values = np.frombuffer(data, "<f4", count)


class _Tensor:
    """A tensor of the pickle: a slice of a storage and its shape, in row-major order."""

    def __init__(
        self, storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any
    ) -> None:
        self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride

    def to_array(self) -> NDArray[np.float32]:
        expected = [int(np.prod(self.shape[axis + 1 :])) for axis in range(len(self.shape))]
        if list(self.stride) != expected:
            raise ValueError("a tensor is not stored row by row")
        return self.storage.values[self.offset : self.offset + int(np.prod(self.shape))].reshape(self.shape)


class _Unpickler(pickle.Unpickler):
    """Creates the classes of the weights only."""

    ALLOWED = {  # noqa: RUF012 — read only
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
        ("torch", "FloatStorage"): "float32",
    }

    def __init__(self, file: BinaryIO, storages: dict[str, _Storage]) -> None:
        super().__init__(file)
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _, count, view = pid
        if kind != "storage" or storage_type != "float32" or view is not None:
            raise pickle.UnpicklingError("it holds something else than float32")
        return self._storages.setdefault(key, _Storage(count))


def build(weights: Weights) -> onnx.ModelProto:
    """Return the graph: mels (batch, frames, bands) → embeddings (batch, values), each of unit length."""
    nodes = [helper.make_node("Transpose", ["mels"], ["layer0"], perm=[1, 0, 2])]  # frames first
    constants: dict[str, NDArray[Any]] = {
        "axis_of_directions": np.array([1], np.int64),
        "axis_of_layers": np.array([0], np.int64),
    }
    hidden_size = weights["lstm.weight_hh_l0"].shape[1]
    for layer in range(LAYERS):
        constants[f"w{layer}"] = _to_onnx_order(weights[f"lstm.weight_ih_l{layer}"])[None]
        constants[f"r{layer}"] = _to_onnx_order(weights[f"lstm.weight_hh_l{layer}"])[None]
        biases = [_to_onnx_order(weights[f"lstm.bias_{kind}_l{layer}"]) for kind in ("ih", "hh")]
        constants[f"b{layer}"] = np.concatenate(biases)[None]
        inputs = [f"layer{layer}", f"w{layer}", f"r{layer}", f"b{layer}"]
        nodes.append(helper.make_node("LSTM", inputs, [f"both{layer}", f"last{layer}"], hidden_size=hidden_size))
        nodes.append(helper.make_node("Squeeze", [f"both{layer}", "axis_of_directions"], [f"layer{layer + 1}"]))
    constants |= {"linear": weights["linear.weight"], "bias": weights["linear.bias"]}
    nodes += [
        helper.make_node("Squeeze", [f"last{LAYERS - 1}", "axis_of_layers"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "linear", "bias"], ["raw"], transB=1),
        helper.make_node("Relu", ["raw"], ["positive"]),
        helper.make_node("LpNormalization", ["positive"], ["embeddings"], axis=1, p=2),
    ]
    bands, values = weights["lstm.weight_ih_l0"].shape[1], weights["linear.weight"].shape[0]
    graph = helper.make_graph(
        nodes,
        "ge2e",
        [helper.make_tensor_value_info("mels", onnx.TensorProto.FLOAT, ["batch", "frames", bands])],
        [helper.make_tensor_value_info("embeddings", onnx.TensorProto.FLOAT, ["batch", values])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _to_onnx_order(gates: NDArray[np.float32]) -> NDArray[np.float32]:
    """Put the gates of torch (input, forget, cell, output) in the order of ONNX (input, output, forget, cell)."""
    in_gate, forget_gate, cell, out_gate = np.split(gates, 4)
    return np.concatenate([in_gate, out_gate, forget_gate, cell])
