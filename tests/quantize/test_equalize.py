"""Equalization leaves the function as it is, gives both sides equal ranges, and helps where scales differ widely."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from evo_tvm.quantize.calibrate import calibrate
from evo_tvm.quantize.calibration_data import open_calibration
from evo_tvm.quantize.constants import constant_input
from evo_tvm.quantize.equalize import equalize
from evo_tvm.quantize.options import QuantizeOptions
from evo_tvm.quantize.prepare import prepare
from evo_tvm.quantize.run_model import model_inputs
from tests.quantize._models import end_to_end_db, feeds, onnx_model, operators, ort_runner

SHAPE = (1, 3, 8, 8)


def uneven(activation: str | None = "Relu") -> onnx.ModelProto:
    """1x1 -> depthwise 3x3 -> 1x1, as in MobileNetV2, with channels whose weights differ by up to 1,000 times."""
    rng = np.random.default_rng(0)
    scales = 10 ** rng.uniform(-1.5, 1.5, (8, 1, 1, 1))
    constants = {
        "w0": (rng.standard_normal((8, 3, 1, 1)) * scales / 2).astype(np.float32),
        "b0": (rng.standard_normal(8) * scales.ravel() / 5).astype(np.float32),
        "w1": (rng.standard_normal((8, 1, 3, 3)) / scales / 3).astype(np.float32),
        "b1": (rng.standard_normal(8) / 5).astype(np.float32),
        "w2": (rng.standard_normal((4, 8, 1, 1)) / 3).astype(np.float32),
        "low": np.float32(0),
        "high": np.float32(6),
    }
    nodes, value = [], "x"
    for index, group in enumerate((1, 8, 1)):
        inputs = [value, f"w{index}"] + ([f"b{index}"] if index < 2 else [])
        value = f"c{index}" if index < 2 else "y"
        nodes.append(helper.make_node("Conv", inputs, [value], f"conv{index}", group=group))
        if index < 2 and activation is not None:
            bounds = ["low", "high"] if activation == "Clip" else []
            nodes.append(helper.make_node(activation, [value, *bounds], [f"r{index}"], f"act{index}"))
            value = f"r{index}"
    used = {name for node in nodes for name in node.input}
    return onnx_model(nodes, {"x": SHAPE}, {k: v for k, v in constants.items() if k in used}, ["y"])


@pytest.mark.parametrize("activation", ["Relu", None])
def test_the_function_stays(activation: str | None) -> None:
    model = uneven(activation)
    graph = prepare(model)
    assert equalize(graph) == 2
    assert end_to_end_db(model, ir.to_proto(graph), feeds(SHAPE)) > 110


def test_ranges_become_equal() -> None:
    graph = prepare(uneven())
    equalize(graph)
    first, middle, last = (constant_input(node, 1) for node in graph.graph if node.op_type == "Conv")
    assert first is not None and middle is not None and last is not None
    ahead, between = np.abs(first).max(axis=(1, 2, 3)), np.abs(middle).max(axis=(1, 2, 3))
    np.testing.assert_allclose(ahead, between, rtol=0.02)
    np.testing.assert_allclose(between, np.abs(last).max(axis=(0, 2, 3)), rtol=0.02)


def test_a_clip_is_left_alone() -> None:
    model = uneven("Clip")
    graph = prepare(model)
    assert equalize(graph) == 0 and operators(ir.to_proto(graph)) == {"Conv": 3, "Clip": 2}


def test_it_helps_where_scales_differ() -> None:
    model = uneven()
    prepared = prepare(model)
    data = open_calibration(feeds(SHAPE), model_inputs(prepared))
    found = []
    for options in (QuantizeOptions(per_channel=False), QuantizeOptions(per_channel=False, equalize=True)):
        found.append(end_to_end_db(model, calibrate(prepared, data, ort_runner, options).write(), feeds(SHAPE)))
    assert found[1] > found[0] + 6, found


@pytest.mark.parametrize("case", ["read twice", "an output", "another activation", "grouped"])
def test_what_is_no_pair(case: str) -> None:
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.standard_normal((4, 4, 1, 1)).astype(np.float32),
        "v": rng.standard_normal((4, 2, 1, 1)).astype(np.float32),
    }
    group = 2 if case == "grouped" else 1
    if group == 1:
        constants["v"] = constants["w"] + 1
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "a"),
        helper.make_node("Sigmoid" if case == "another activation" else "Relu", ["c"], ["r"], "b"),
        helper.make_node("Conv", ["r", "v"], ["d"], "e", group=group),
        helper.make_node("Add", ["d", "r" if case == "read twice" else "d"], ["y"], "f"),
    ]
    model = onnx_model(nodes, {"x": (1, 4, 3, 3)}, constants, ["y", "c"] if case == "an output" else ["y"])
    assert equalize(prepare(model)) == 0
