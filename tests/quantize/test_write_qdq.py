"""The QDQ model: valid ONNX, near the float model, computed in integers by ONNX Runtime; its constants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from evo_tvm.quantize.calibrate import Calibrated, calibrate
from evo_tvm.quantize.calibration_data import open_calibration
from evo_tvm.quantize.options import QuantizeOptions
from evo_tvm.quantize.prepare import prepare
from evo_tvm.quantize.run_model import model_inputs
from tests.onnx_runtime import exact_session
from tests.quantize._models import (
    constant,
    end_to_end_db,
    feeds,
    onnx_model,
    operators,
    ort_runner,
    residual_model,
)

RNG = np.random.default_rng(3)


def calibrated(model: onnx.ModelProto, shape: tuple[int, ...], **options: Any) -> Calibrated:
    prepared = prepare(model)
    data = open_calibration(feeds(shape), model_inputs(prepared))
    return calibrate(prepared, data, ort_runner, QuantizeOptions(**options))


def quantized(model: onnx.ModelProto, shape: tuple[int, ...], **options: Any) -> onnx.ModelProto:
    found = calibrated(model, shape, **options).write()
    onnx.checker.check_model(found, full_check=True)
    return found


def weights(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"observer": "kl"},
    {"observer": "mse"},
    {"observer": "minmax"},
    {"observer": "moving-average"},
    {"per_channel": False},
    {"activations": "int8"},
    {"activations": "int8", "symmetric": True},
    {"symmetric": True},
    {"equalize": True},
    {"bias_correction": True},
    {"keep_first": True, "keep_last": True},
    {"skip": ("b", "concat"), "skip_operators": ("MaxPool",)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("batch", [1, "N"])
def test_the_residual_network_is_near_its_float_model(options: dict[str, Any], batch: int | str) -> None:
    model = residual_model(batch=batch)
    found = quantized(model, (1, 3, 8, 8), **options)
    least = 20 if options.get("observer") in ("kl", "moving-average") else 27  # dB; symmetric ones lose a bit of eight
    assert end_to_end_db(model, found, feeds((1, 3, 8, 8), seed=2)) > least
    assert [o.name for o in found.graph.output] == ["scores"] and [i.name for i in found.graph.input] == ["x"]


def test_onnx_runtime_computes_all_of_it_in_integers(tmp_path: Path) -> None:
    found = quantized(residual_model(), (1, 3, 8, 8))
    exact_session(found, str(tmp_path / "optimized.onnx"))
    left = operators(onnx.load(tmp_path / "optimized.onnx"))
    assert left["QLinearConv"] == 4 and left["QLinearAdd"] == 1 and left["QLinearGlobalAveragePool"] == 1
    assert left["QGemm"] == 1 and left["QuantizeLinear"] == 1  # of the input
    assert not {"Conv", "FusedConv", "Gemm", "Add", "Relu", "DequantizeLinear", "BatchNormalization"} & set(left)


def test_constants() -> None:
    found = quantized(residual_model(), (1, 3, 8, 8))
    assert constant(found, "a.weight_quantized").dtype == np.int8
    assert constant(found, "a.weight_scale").shape == (8,) and not constant(found, "a.weight_zero_point").any()
    assert constant(found, "a.bias_quantized").dtype == np.int32
    product = constant(found, "a.weight_scale") * constant(found, "x_scale")
    np.testing.assert_allclose(constant(found, "a.bias_scale"), product, rtol=1e-6)
    assert constant(found, "a.relu_zero_point") == 0 and constant(found, "a.relu_zero_point").dtype == np.uint8
    whole = quantized(residual_model(), (1, 3, 8, 8), per_channel=False)
    assert constant(whole, "a.weight_scale").shape == constant(whole, "a.bias_scale").shape == ()
    names = [tensor.name for tensor in found.graph.initializer]
    used = {name for node in found.graph.node for name in node.input}
    assert set(names) <= used and len(names) == len(set(names))


def test_tensors_that_only_move_share_scale_and_zero_point() -> None:
    found = quantized(residual_model(), (1, 3, 8, 8))
    scales = {node.input[0]: node.input[1:] for node in found.graph.node if node.op_type == "QuantizeLinear"}
    assert scales["c.bn"] == scales["d.bn"] == scales["joined"] and scales["sum.relu"] == scales["pool"]
    assert scales["b.bn"] != scales["sum.relu"]


def test_nothing_lies_between_a_convolution_and_its_relu() -> None:
    found = quantized(residual_model(), (1, 3, 8, 8))
    makers = {node.output[0]: node for node in found.graph.node}
    relus = [node for node in found.graph.node if node.op_type == "Relu"]
    assert [makers[relu.input[0]].op_type for relu in relus] == ["Conv", "Add"]


def test_a_layer_is_given_back_without_calibrating_again() -> None:
    found = calibrated(residual_model(), (1, 3, 8, 8))
    everything, part, nothing = found.write(), found.write(["b"]), found.write(["[abcd]", "fc", "add"])
    assert [op["QuantizeLinear"] for op in map(operators, (everything, part, nothing))] == [10, 10, 0]
    assert constant(part, "b.weight").dtype == np.float32
    model, some = residual_model(), feeds((1, 3, 8, 8), seed=2)
    assert end_to_end_db(model, nothing, some) > 100
    np.testing.assert_array_equal(
        constant(everything, "a.weight_quantized"), constant(found.write(), "a.weight_quantized")
    )


def conv(operator: str, *shape: int, channels: int, **attributes: Any) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    x = (1, 6, 9, 7)
    constants = {"w": weights(*shape), "b": weights(channels, 1).ravel()}
    layer = helper.make_node(operator, ["x", "w", "b"], ["c"], "layer", **attributes)
    return onnx_model([layer, helper.make_node("Relu", ["c"], ["y"], "relu")], {"x": x}, constants, ["y"]), x


LAYERS = {
    "odd channels": conv("Conv", 5, 6, 3, 3, channels=5, pads=[1, 0, 2, 1]),
    "strided": conv("Conv", 8, 6, 5, 5, channels=8, strides=[2, 3]),
    "dilated": conv("Conv", 8, 6, 3, 3, channels=8, dilations=[2, 2]),
    "depthwise": conv("Conv", 6, 1, 3, 3, channels=6, group=6),
    "multiplied": conv("Conv", 12, 1, 3, 3, channels=12, group=6),
    "grouped": conv("Conv", 9, 2, 3, 3, channels=9, group=3),
    "same": conv("Conv", 4, 6, 3, 3, channels=4, auto_pad="SAME_UPPER", strides=[2, 2]),
    "transposed": conv("ConvTranspose", 6, 5, 3, 3, channels=5, strides=[2, 2], output_padding=[1, 1]),
    "grouped transposed": conv("ConvTranspose", 6, 3, 3, 3, channels=6, group=2),
    "1x1": conv("Conv", 3, 6, 1, 1, channels=3),
}


@pytest.mark.parametrize(
    "options", [{}, {"per_channel": False}, {"bias_correction": True}, {"activations": "int8"}], ids=str
)
@pytest.mark.parametrize("layer", LAYERS)
def test_single_layers(layer: str, options: dict[str, Any]) -> None:
    model, shape = LAYERS[layer]
    found = quantized(model, shape, observer="minmax", **options)
    assert end_to_end_db(model, found, feeds(shape)) > 34


@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm(trans_b: int) -> None:
    constants = {"w": weights(*((7, 5) if trans_b else (5, 7))), "b": weights(7, 1).ravel()}
    model = onnx_model(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], "g", transB=trans_b)], {"x": (3, 5)}, constants, ["y"]
    )
    found = quantized(model, (3, 5), observer="minmax")
    assert constant(found, "g.weight_scale").shape == (7,)
    assert end_to_end_db(model, found, feeds((3, 5))) > 38


def test_matmul_of_three_dimensions_with_bias() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], "m"),
        helper.make_node("Add", ["m", "b"], ["a"], "bias"),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "v"], ["y"], "n"),
    ]
    constants = {"w": weights(5, 7), "b": weights(7, 1).ravel(), "v": weights(7, 2)}
    model = onnx_model(nodes, {"x": (2, 4, 5)}, constants, ["y"])
    found = quantized(model, (2, 4, 5), observer="minmax")
    assert operators(found)["QuantizeLinear"] == 2
    assert end_to_end_db(model, found, feeds((2, 4, 5))) > 33


def test_elementwise_pooling_and_resize() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1] * 4),
        helper.make_node("Clip", ["c", "low", "high"], ["r"], "clip"),
        helper.make_node("AveragePool", ["r"], ["p"], "average", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Resize", ["p", "", "scales"], ["u"], "resize", mode="nearest"),
        helper.make_node("Concat", ["u", "r"], ["j"], "join", axis=1),
        helper.make_node("Transpose", ["j"], ["t"], "turn", perm=[0, 2, 3, 1]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"], "gap"),
        helper.make_node("Conv", ["g", "v"], ["e"], "excite"),
        helper.make_node("HardSigmoid", ["e"], ["h"], "gate"),
        helper.make_node("Mul", ["r", "h"], ["y"], "scale"),
    ]
    constants = {"w": weights(4, 3, 3, 3), "v": weights(4, 4, 1, 1), "low": np.float32(0), "high": np.float32(1)}
    constants["scales"] = np.float32([1, 1, 2, 2])
    model = onnx_model(nodes, {"x": (1, 3, 8, 8)}, constants, ["y", "t"])
    found = quantized(model, (1, 3, 8, 8), observer="minmax")
    assert end_to_end_db(model, found, feeds((1, 3, 8, 8))) > 33
    # What leaves the model is floats; both outputs keep their names, of a layer and of a node that moves.
    makers = {node.output[0]: node.op_type for node in found.graph.node}
    assert makers["y"] == makers["t"] == "DequantizeLinear"


def test_swish_stays_between_floats() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node("Sigmoid", ["c"], ["s"], "sigmoid"),
        helper.make_node("Mul", ["c", "s"], ["g"], "mul"),
        helper.make_node("Conv", ["g", "v"], ["y"], "second"),
    ]
    model = onnx_model(nodes, {"x": (1, 3, 8, 8)}, {"w": weights(4, 3, 3, 3), "v": weights(2, 4, 1, 1)}, ["y"])
    found = quantized(model, (1, 3, 8, 8), observer="minmax")
    assert {node.input[0] for node in found.graph.node if node.op_type == "QuantizeLinear"} == {
        "x",
        "c",
        "g",
        "y_float",
    }
    assert end_to_end_db(model, found, feeds((1, 3, 8, 8))) > 33


def test_a_constant_activation_and_dead_channels() -> None:
    """The first layer gives zero in one channel and a constant in another; one of the second has no weights."""
    first, second = weights(4, 3, 1, 1), weights(3, 4, 1, 1)
    first[:2], second[2] = 0, 0
    biases = {"b": np.float32([0, 5, 0.1, -0.1]), "d": np.float32([0.3, -0.2, 100])}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "first"),
        helper.make_node("Conv", ["c", "v", "d"], ["y"], "second"),
    ]
    model = onnx_model(nodes, {"x": (1, 3, 6, 6)}, {"w": first, "v": second, **biases}, ["y"])
    found = quantized(model, (1, 3, 6, 6), observer="minmax")
    y = ort_runner(found)(feeds((1, 3, 6, 6))[0])["y"]
    step = constant(found, "y_scale")
    np.testing.assert_allclose(y[0, 2], 100, atol=step)
    assert np.isfinite(y).all()
    always_zero = onnx_model(nodes[:1], {"x": (1, 3, 6, 6)}, {"w": 0 * first, "b": 0 * biases["b"]}, ["c"])
    for options in ({}, {"observer": "kl"}, {"observer": "mse"}, {"observer": "minmax"}, {"symmetric": True}):
        found = quantized(always_zero, (1, 3, 6, 6), **options)
        assert constant(found, "c_scale") == 1 and not ort_runner(found)(feeds((1, 3, 6, 6))[0])["c"].any()


def test_a_large_bias_fits_into_32_bits() -> None:
    """Weights of 1e-9 under a bias of 1: at their own scale the bias would need 38 bits."""
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], "layer")]
    constants = {"w": np.full((2, 3, 1, 1), 1e-9, np.float32), "b": np.float32([1, -1])}
    model = onnx_model(nodes, {"x": (1, 3, 4, 4)}, constants, ["y"])
    for per_channel in (True, False):
        found = quantized(model, (1, 3, 4, 4), per_channel=per_channel)
        assert np.abs(constant(found, "layer.bias_quantized").astype(np.int64)).max() <= 2**30
        assert end_to_end_db(model, found, feeds((1, 3, 4, 4))) > 40


def test_weights_that_two_layers_share() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], "one"), helper.make_node("Conv", ["c", "w"], ["y"], "two")]
    model = onnx_model(nodes, {"x": (1, 3, 6, 6)}, {"w": weights(3, 3, 1, 1)}, ["y"])
    assert end_to_end_db(model, quantized(model, (1, 3, 6, 6)), feeds((1, 3, 6, 6))) > 28


def test_several_passes_find_the_same() -> None:
    prepared = prepare(residual_model())
    data = open_calibration(feeds((1, 3, 8, 8)), model_inputs(prepared))
    options = QuantizeOptions(bias_correction=True)
    one, some, each = (calibrate(prepared, data, ort_runner, options, pass_bytes=size) for size in (1 << 30, 5000, 1))
    for found in (some, each):
        assert list(found.ranges) == list(one.ranges)
        for name, span in found.ranges.items():
            assert (span.low, span.high) == pytest.approx((one.ranges[name].low, one.ranges[name].high), rel=1e-5)
        for name, shift in found.shifts.items():
            np.testing.assert_allclose(shift, one.shifts[name], atol=1e-7)


def test_numbers_of_the_float_model_must_be_finite() -> None:
    from evo_tvm.errors import ModelError

    nodes = [helper.make_node("Log", ["x"], ["l"], "log"), helper.make_node("Conv", ["l", "w"], ["y"], "conv")]
    model = onnx_model(nodes, {"x": (1, 3, 4, 4)}, {"w": weights(2, 3, 1, 1)}, ["y"])
    with pytest.raises(ModelError, match="tensor 'l': the float model computes NaN from the calibration data"):
        quantized(model, (1, 3, 4, 4))


def test_the_shared_bias_of_another_shape_is_read_back() -> None:
    found = quantized(residual_model(), (1, 3, 8, 8))
    scale = {tensor.name: numpy_helper.to_array(tensor) for tensor in found.graph.initializer}
    back = scale["fc.bias_quantized"] * scale["fc.bias_scale"]
    original = constant(residual_model(), "fc.bias")
    np.testing.assert_allclose(back, original, atol=float(scale["fc.bias_scale"].max()))
