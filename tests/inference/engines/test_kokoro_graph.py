"""The rewriting of Kokoro's graph, on graphs made by hand that have the shapes it looks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from inference.engines.kokoro_graph import cap_durations, prepare, replace_integer_convolutions

CHANNELS_IN, CHANNELS_OUT, KERNEL = 3, 4, 3


def integer_convolution(*, with_bias: bool, per_channel: bool, with_zero_point: bool) -> onnx.ModelProto:
    """DynamicQuantizeLinear → ConvInteger [→ Add bias] → Cast → Mul, as onnxruntime's quantiser writes them."""
    random = np.random.default_rng(1)
    weight = random.integers(-100, 100, (CHANNELS_OUT, CHANNELS_IN, KERNEL), dtype=np.int8)
    scale = random.uniform(0.005, 0.02, CHANNELS_OUT if per_channel else ()).astype(np.float32)
    if per_channel:
        scale = scale.reshape(1, CHANNELS_OUT, 1)
    constants = {"weight": weight, "weight_scale": scale}
    inputs = ["x_quantized", "weight", "x_zero_point"]
    if with_zero_point:
        constants["weight_zero_point"] = np.array(-5, np.int8)  # ONNX Runtime takes no zero point per channel
        inputs.append("weight_zero_point")
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["x_quantized", "x_scale", "x_zero_point"]),
        helper.make_node("ConvInteger", inputs, ["sum"], pads=[2, 2], dilations=[2], name="conv"),
        helper.make_node("Mul", ["x_scale", "weight_scale"], ["scale"]),
    ]
    summed = "sum"
    if with_bias:
        constants["bias"] = random.normal(0, 1, CHANNELS_OUT).astype(np.float32)
        constants["flat_scale_shape"] = np.array([-1])
        constants["bias_shape"] = np.array([1, -1, 1])
        nodes += [
            helper.make_node("Reshape", ["scale", "flat_scale_shape"], ["flat_scale"]),
            helper.make_node("Div", ["bias", "flat_scale"], ["bias_divided"]),
            helper.make_node("Floor", ["bias_divided"], ["bias_floored"]),
            helper.make_node("Cast", ["bias_floored"], ["bias_integer"], to=TensorProto.INT32),
            helper.make_node("Reshape", ["bias_integer", "bias_shape"], ["bias_shaped"]),
            helper.make_node("Add", ["sum", "bias_shaped"], ["sum_biased"]),
        ]
        summed = "sum_biased"
    nodes += [
        helper.make_node("Cast", [summed], ["sum_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["sum_float", "scale"], ["y"]),
    ]
    return make_model(nodes, {"x": [1, CHANNELS_IN, "n"]}, {"y": [1, CHANNELS_OUT, "n"]}, constants)


def duration_predictor() -> onnx.ModelProto:
    """Round → Clip as Kokoro predicts the frames of each token, with two users."""
    nodes = [
        helper.make_node("Round", ["x"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "one"], ["predicted"]),
        helper.make_node("ReduceSum", ["predicted"], ["total"], keepdims=0),
        helper.make_node("Add", ["predicted", "predicted"], ["y"]),
    ]
    constants: dict[str, NDArray[Any]] = {"one": np.array(1, np.float32)}
    return make_model(nodes, {"x": [1, "n"]}, {"y": [1, "n"], "total": []}, constants)


def make_model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    constants: dict[str, NDArray[Any]],
) -> onnx.ModelProto:
    def values(shapes: dict[str, list[Any]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "tiny", values(inputs), values(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def run(model: onnx.ModelProto, **inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


class TestReplaceIntegerConvolutions:
    @pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no bias"])
    @pytest.mark.parametrize("per_channel", [True, False], ids=["scale per channel", "one scale"])
    @pytest.mark.parametrize("with_zero_point", [True, False], ids=["zero point", "no zero point"])
    def test_keeps_the_output(self, with_bias: bool, per_channel: bool, with_zero_point: bool) -> None:
        model = integer_convolution(with_bias=with_bias, per_channel=per_channel, with_zero_point=with_zero_point)
        x = np.random.default_rng(2).normal(0, 1, (1, CHANNELS_IN, 50)).astype(np.float32)
        (before,) = run(model, x=x)

        assert replace_integer_convolutions(model) == 1
        (after,) = run(model, x=x)

        # The activation had 8 bits of ±4: the largest error of a sum of 9 products stays well below this.
        assert before.shape == after.shape
        assert np.abs(before - after).max() < 0.1
        assert np.abs(before).max() > 2

    def test_leaves_nothing_of_the_quantisation(self) -> None:
        model = integer_convolution(with_bias=True, per_channel=False, with_zero_point=True)

        replace_integer_convolutions(model)

        onnx.checker.check_model(model)
        assert [node.op_type for node in model.graph.node] == ["Conv"]
        assert {tensor.name for tensor in model.graph.initializer} == {"weight_float", "bias"}

    def test_keeps_the_attributes(self) -> None:
        model = integer_convolution(with_bias=True, per_channel=False, with_zero_point=True)

        replace_integer_convolutions(model)

        attributes = {a.name: helper.get_attribute_value(a) for a in model.graph.node[0].attribute}
        assert attributes == {"pads": [2, 2], "dilations": [2]}

    def test_refuses_a_shape_it_does_not_know(self) -> None:
        model = integer_convolution(with_bias=False, per_channel=False, with_zero_point=False)
        cast = next(node for node in model.graph.node if node.op_type == "Cast")
        cast.op_type = "Neg"

        with pytest.raises(ValueError, match="conv: expected Cast and Mul after it, found Neg, Mul"):
            replace_integer_convolutions(model)


class TestCapDurations:
    def test_caps_each_token_on_its_own(self) -> None:
        model = duration_predictor()
        cap_durations(model)
        onnx.checker.check_model(model)

        y, total, durations = run(
            model,
            x=np.array([[0.2, 3.4, 9.0]], np.float32),
            max_durations=np.array([[1000, 1000, 4]], np.float32),
        )

        assert durations.tolist() == [[1, 3, 4]]
        assert y.tolist() == [[2, 6, 8]]
        assert float(total) == 8


class TestPrepare:
    def test_refuses_a_graph_without_integer_convolutions(self, tmp_path: Path) -> None:
        onnx.save(duration_predictor(), tmp_path / "model_int8.onnx")

        with pytest.raises(ValueError, match="no integer convolution"):
            prepare(tmp_path)

        assert not (tmp_path / "model.onnx").exists()
