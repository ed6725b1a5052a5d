"""Quantized models that take bytes from outside: few channels lie in fours, and few results fill no whole vector."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import evo_tvm
from tests.onnx_runtime import exact_session


def quantized_convolution(channels: int, results: int, size: int) -> onnx.ModelProto:
    """uint8 (1, channels, size, size) -> uint8 (1, results, size, size), by a 3x3 window."""
    rng = np.random.default_rng(0)
    constants = {
        "xs": np.float32(0.02),
        "xz": np.uint8(128),
        "w": rng.integers(-127, 128, (results, channels, 3, 3)).astype(np.int8),
        "ws": np.float32(0.01),
        "wz": np.int8(0),
        "ys": np.float32(0.5),
        "yz": np.uint8(7),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "xs", "xz"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wf"]),
        helper.make_node("Conv", ["xf", "wf"], ["c"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["c", "ys", "yz"], ["y"]),
    ]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.UINT8, [1, count, size, size])]
        for name, count in (("x", channels), ("y", results))
    )
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "quantized", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize(("channels", "results", "size"), [(3, 8, 14), (1, 5, 9), (4, 24, 7), (3, 16, 11)])
def test_bytes_from_outside(channels: int, results: int, size: int) -> None:
    model = quantized_convolution(channels, results, size)
    image = np.random.default_rng(1).integers(0, 256, (1, channels, size, size)).astype(np.uint8)
    expected = exact_session(model).run(None, {"x": image})[0]
    with evo_tvm.compile(model).module() as module:
        got = module.run({"x": image})["y"]
    assert np.abs(got.astype(int) - expected).max() <= 1 and (got == expected).mean() >= 0.999
