"""
Rewrites Kokoro's int8 graph when it is fetched, for speed on two processor cores.

Two changes, both measured on two AVX-512 cores with ONNX Runtime 1.32:

1. `ConvInteger` has no fast kernel on x86 (57 % of the time). Its weights are dequantised into plain `Conv`:
   10 characters in 1.27 s instead of 1.48 s, the speech at the same places. The matrix products stay int8.
2. The graph is split between prosody and decoder: a fortieth of the time lies before the split. A third to a half of
   the decoder's input is silence around the clause, which can now be cropped.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.shape_inference
import onnx.utils
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

SOURCE = "model_int8.onnx"
PROSODY = "prosody.onnx"
DECODER = "decoder.onnx"
INPUTS = ["tokens", "style", "speed"]
#: Inputs of the decoder that do not cross the split.
DECODER_INPUTS = ["style"]
#: Values that cross the split, and their names: 512 features per frame of 25 ms, and two values per half frame, the
#: pitch (Hz) and the energy (about 8 in speech, -9 in silence).
CROSSING = {
    "/encoder/MatMul_1_output_0": "features",
    "/encoder/Reshape_output_0": "pitch",
    "/encoder/Reshape_1_output_0": "energy",
}


def split(folder: Path, models_dir: Path | None = None) -> None:
    """Write `prosody.onnx` and `decoder.onnx` next to `model_int8.onnx`. Raises ValueError on an unexpected graph."""
    model = onnx.load(folder / SOURCE)
    if replace_integer_convolutions(model) == 0:
        raise ValueError("Kokoro's graph has no integer convolution: is it the int8 model?")
    rename(model, CROSSING)
    extractor = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model))
    names = list(CROSSING.values())
    parts = ((PROSODY, INPUTS, names), (DECODER, [*names, *DECODER_INPUTS], ["audio"]))
    for name, inputs, outputs in parts:
        onnx.save(extractor.extract_model(inputs, outputs), folder / name)


def rename(model: onnx.ModelProto, names: dict[str, str]) -> None:
    """Rename values inside the graph. Raises ValueError for a name that the graph has not."""
    known = {name for node in model.graph.node for name in node.output}
    if missing := set(names) - known:
        raise ValueError(f"Kokoro's graph has no {', '.join(sorted(missing))}")
    for node in model.graph.node:
        for values in (node.input, node.output):
            for position, name in enumerate(values):
                values[position] = names.get(name, name)
    for value in model.graph.value_info:
        value.name = names.get(value.name, value.name)


def replace_integer_convolutions(model: onnx.ModelProto) -> int:
    """
    Replace DynamicQuantizeLinear → ConvInteger [→ Add bias] → Cast → Mul scale by Conv; return how many there were.

    weight = (quantised − zero point) · scale; the activation is no longer quantised, so no precision is lost.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output}
    consumers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)

    def constant(name: str) -> NDArray[np.generic]:
        return numpy_helper.to_array(constants[name])

    replacement: dict[int, NodeProto] = {}
    dropped: set[int] = set()
    for node in graph.node:
        if node.op_type != "ConvInteger":
            continue
        dropped.add(id(node))
        follower = _only(consumers[node.output[0]])
        inputs = [producer[node.input[0]].input[0], node.input[1] + "_float"]
        if follower.op_type == "Add":  # the bias, quantised at run time: Reshape(Cast(Floor(Div(bias, scale))))
            reshape = producer[next(name for name in follower.input if name != node.output[0])]
            divided = producer[producer[producer[reshape.input[0]].input[0]].input[0]]
            if divided.op_type != "Div" or divided.input[0] not in constants:
                raise ValueError(f"{node.name}: the bias is not where it is expected")
            inputs.append(divided.input[0])
            dropped.add(id(follower))
            follower = _only(consumers[follower.output[0]])
        scaled = _only(consumers[follower.output[0]])
        if follower.op_type != "Cast" or scaled.op_type != "Mul":
            raise ValueError(f"{node.name}: expected Cast and Mul after it, found {follower.op_type}, {scaled.op_type}")
        dropped.add(id(follower))
        scales = producer[next(name for name in scaled.input if name != follower.output[0])]
        scale = constant(next(name for name in scales.input if name in constants))
        weight = constant(node.input[1])
        zero = constant(node.input[3]) if len(node.input) > 3 else np.zeros((), weight.dtype)
        per_channel = (-1,) + (1,) * (weight.ndim - 1)
        weight_float = (weight.astype(np.float32) - zero.astype(np.float32).reshape(per_channel)) * scale.astype(
            np.float32
        ).reshape(per_channel)
        graph.initializer.append(numpy_helper.from_array(weight_float, inputs[1]))
        convolution = helper.make_node("Conv", inputs, [scaled.output[0]], name=node.name + "_float")
        convolution.attribute.extend(node.attribute)
        replacement[id(scaled)] = convolution

    nodes = [replacement.get(id(node), node) for node in graph.node if id(node) not in dropped]
    _keep_what_is_used(graph, nodes)
    return len(replacement)


def _only(nodes: list[NodeProto]) -> NodeProto:
    if len(nodes) != 1:
        raise ValueError(f"expected one consumer, found {[node.name for node in nodes]}")
    return nodes[0]


def _keep_what_is_used(graph: onnx.GraphProto, nodes: list[NodeProto]) -> None:
    while True:
        used = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
        alive = [node for node in nodes if any(name in used for name in node.output)]
        if len(alive) == len(nodes):
            break
        nodes = alive
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.initializer[:]
    graph.initializer.extend(kept)
