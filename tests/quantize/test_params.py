"""Scales and zero points: bounds of the round trip, agreement with ONNX Runtime, and the awkward ranges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from evo_tvm.quantize.params import LIMITS, Range, Scheme, symmetric_params, weight_params
from tests.onnx_runtime import exact_session

SCHEMES = [Scheme(dtype, symmetric) for dtype in ("uint8", "int8") for symmetric in (False, True)]
ends = st.floats(-1e4, 1e4, width=32)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(low=ends, high=ends)
def test_every_value_in_the_range_survives_within_half_a_step(scheme: Scheme, low: float, high: float) -> None:
    span = Range(min(low, high), max(low, high))
    params = scheme.params(span)
    step = float(params.scale)
    values = np.linspace(span.low, span.high, 1001)
    # Half a step; an end on which the zero point was rounded is cut off by at most half a step more.
    assert np.abs(params.round_trip(values) - values).max() <= step * 1.001 + 1e-30
    inner = values[(values >= span.low + step / 2) & (values <= span.high - step / 2)]
    assert np.abs(params.round_trip(inner) - inner).max(initial=0) <= step * 0.501 + 1e-30


@pytest.mark.parametrize("scheme", SCHEMES)
@given(low=ends, high=ends)
def test_zero_is_exact_and_the_zero_point_is_an_integer_of_the_type(scheme: Scheme, low: float, high: float) -> None:
    params = scheme.params(Range(min(low, high), max(low, high)))
    least, largest = LIMITS[scheme.dtype]
    assert least <= int(params.zero_point) <= largest and params.zero_point.dtype == scheme.dtype
    assert params.round_trip(np.zeros(3)).tolist() == [0, 0, 0]


def test_a_range_always_has_zero() -> None:
    assert Range(1, 3) == Range(0, 3) and Range(-3, -1) == Range(-3, 0)
    assert Range(0, 1) | Range(-2, 0.5) == Range(-2, 1)


def test_known_parameters() -> None:
    def found(scheme: Scheme, low: float, high: float) -> tuple[float, int]:
        params = scheme.params(Range(low, high))
        return float(params.scale), int(params.zero_point)

    assert found(Scheme("uint8"), 0, 255) == (1, 0)
    assert found(Scheme("int8"), 0, 255) == (1, -128)
    assert found(Scheme("uint8"), -128, 127) == (1, 128)
    assert found(Scheme("uint8", True), 0, 510) == (2, 0)  # nothing is negative: all integers are for the positive
    assert found(Scheme("uint8", True), -254, 127) == (2, 128)
    assert found(Scheme("int8", True), -100, 127) == (1, 0)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("value", [0.0, 3.25, -7.5, 1e-42, -1e-45, 3e38])
def test_a_constant_activation_has_a_normal_scale(scheme: Scheme, value: float) -> None:
    params = scheme.params(Range(value, value))
    scale = float(params.scale)
    assert scale >= np.finfo(np.float32).tiny and math.isfinite(1 / scale) and params.scale.dtype == np.float32
    assert params.round_trip(np.full(2, value))[0] == pytest.approx(value, rel=0.005, abs=1e-36)


@pytest.mark.parametrize("axis", [0, 1, 2, None])
def test_weights_are_within_half_a_step_of_their_channel(axis: int | None) -> None:
    weights = np.random.default_rng(0).standard_normal((5, 3, 4)).astype(np.float32)
    weights[1] *= 100
    params = weight_params(weights, axis)
    assert params.scale.shape == (() if axis is None else (weights.shape[axis],))
    integers = params.quantize(weights)
    assert integers.dtype == np.int8 and integers.min() >= -127 and not params.zero_point.any()
    shape = [1, 1, 1]
    if axis is not None:
        shape[axis] = -1
    assert (np.abs(params.dequantize(integers) - weights) <= params.scale.reshape(shape) * 0.5001).all()


def test_a_channel_of_zeros_has_the_scale_one() -> None:
    weights = np.ones((2, 3), np.float32)
    weights[0] = 0
    params = weight_params(weights, 0)
    assert params.scale.tolist() == [1, np.float32(1 / 127)]
    assert params.round_trip(weights).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert symmetric_params(np.zeros(2), None, "int32").scale.tolist() == [1, 1]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_quantize_is_onnx_runtimes(scheme: Scheme) -> None:
    params = scheme.params(Range(-1.7, 3.1))
    steps = np.arange(-400, 400) * 0.5 * float(params.scale)  # ties, and values beyond both ends
    values = np.concatenate([steps, np.random.default_rng(0).uniform(-3, 5, 1000)]).astype(np.float32)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(scheme.dtype))
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])],
        "q",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, values.shape),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, ()),
            helper.make_tensor_value_info("z", element, ()),
        ],
        [helper.make_tensor_value_info("y", element, values.shape)],
    )
    session = exact_session(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    expected = session.run(None, {"x": values, "s": params.scale, "z": params.zero_point})[0]
    np.testing.assert_array_equal(params.quantize(values), expected)
