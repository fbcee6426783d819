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

from inference.engines import kokoro_graph
from inference.engines.kokoro_graph import rename, replace_integer_convolutions, split

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


def speaker() -> onnx.ModelProto:
    """An integer convolution, as in Kokoro, between what is planned and what is made into sound."""
    model = integer_convolution(with_bias=False, per_channel=False, with_zero_point=False)
    graph = model.graph
    graph.node[-1].output[0] = "planned"
    graph.node.append(helper.make_node("Add", ["planned", "planned"], ["audio"], name="decode"))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("audio", TensorProto.FLOAT, [1, CHANNELS_OUT, "n"]))
    return model


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


class TestRename:
    def test_changes_the_name_on_both_sides(self) -> None:
        model = speaker()
        x = np.ones((1, CHANNELS_IN, 9), np.float32)
        before = run(model, x=x)

        rename(model, {"planned": "features"})

        onnx.checker.check_model(model)
        assert [node.input[:] for node in model.graph.node][-1] == ["features", "features"]
        np.testing.assert_array_equal(run(model, x=x)[0], before[0])

    def test_refuses_what_is_not_there(self) -> None:
        with pytest.raises(ValueError, match="no /encoder/MatMul"):
            rename(speaker(), {"/encoder/MatMul": "features"})


class TestSplit:
    @pytest.fixture(autouse=True)
    def _small_graph(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kokoro_graph, "CROSSING", {"planned": "features"})
        monkeypatch.setattr(kokoro_graph, "INPUTS", ["x"])
        monkeypatch.setattr(kokoro_graph, "DECODER_INPUTS", [])

    def test_makes_two_parts_that_do_what_the_whole_did(self, tmp_path: Path) -> None:
        model = speaker()
        x = np.random.default_rng(3).normal(0, 1, (1, CHANNELS_IN, 40)).astype(np.float32)
        (whole,) = run(model, x=x)
        onnx.save(model, tmp_path / "model_int8.onnx")

        split(tmp_path)

        (features,) = run(onnx.load(tmp_path / "prosody.onnx"), x=x)
        (audio,) = run(onnx.load(tmp_path / "decoder.onnx"), features=features)
        assert np.abs(audio - whole).max() < 0.2

    def test_refuses_a_graph_without_integer_convolutions(self, tmp_path: Path) -> None:
        model = speaker()
        replace_integer_convolutions(model)
        onnx.save(model, tmp_path / "model_int8.onnx")

        with pytest.raises(ValueError, match="no integer convolution"):
            split(tmp_path)

        assert not (tmp_path / "decoder.onnx").exists()
