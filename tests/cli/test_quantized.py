"""What `inspect` and `profile` say of a quantized model: what it computes in, and why."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from evo_tvm.cli import app


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def model() -> onnx.ModelProto:
    """QDQ: "bytes" reads bytes, "asymmetric" too, with weights around 5; "plain" reads what is not quantized."""
    rng = np.random.default_rng(0)
    constants = {
        "scale": np.array(0.05, np.float32),
        "zero": np.array(128, np.uint8),
        "middle": np.array(0, np.int8),
        "five": np.array(5, np.int8),
        "w": rng.integers(-127, 128, (16, 16, 3, 3)).astype(np.int8),
        "v": rng.integers(-127, 128, (16, 16, 3, 3)).astype(np.int8),
        "u": rng.standard_normal((8, 16, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["a"]),
        helper.make_node("DequantizeLinear", ["a", "scale", "zero"], ["b"]),
        helper.make_node("DequantizeLinear", ["w", "scale", "middle"], ["dw"]),
        helper.make_node("DequantizeLinear", ["v", "scale", "five"], ["dv"]),
        helper.make_node("Conv", ["b", "dw"], ["c"], "bytes", pads=[1] * 4),
        helper.make_node("QuantizeLinear", ["c", "scale", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["d", "scale", "zero"], ["e"]),
        helper.make_node("Conv", ["e", "dv"], ["f"], "asymmetric", pads=[1] * 4),
        helper.make_node("Conv", ["f", "u"], ["g"], "plain"),
        helper.make_node("Relu", ["g"], ["y"]),
    ]
    shapes = {"x": [1, 16, 12, 12], "y": [1, 8, 12, 12]}
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "quantized", [x], [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def quantized_evo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantized")
    onnx.save(model(), folder / "q.onnx")
    invoke("compile", folder / "q.onnx", "-o", folder / "q.evo")
    return folder / "q.evo"


def test_inspect_counts_integer_kernels_and_says_why_the_others_are_not(quantized_evo: Path) -> None:
    found = json.loads(invoke("inspect", quantized_evo, "--json"))
    types = {kernel["layers"][0]: kernel["dtype"] for kernel in found["kernels"] if "conv2d" in kernel["operator"]}
    assert types == {"bytes": "int8", "asymmetric": "float32", "plain": "float32"}
    counts = found["integer_kernels"], found["float_kernels"]
    assert sum(counts) == len(found["kernels"]) and counts[0] == sum(k["dtype"] == "int8" for k in found["kernels"])
    reasons = {layer["layer"]: layer["reason"] for layer in found["stayed_float"]}
    assert list(reasons) == ["asymmetric", "plain"] and reasons["plain"] == "its input is float"
    assert reasons["asymmetric"].startswith("its weights are asymmetric")
    text = invoke("inspect", quantized_evo)
    assert f"{counts[0]} compute in integers, {counts[1]} in float" in text
    assert "2 layers of this quantized model stayed in float:" in text
    assert "  plain (conv2d): its input is float" in text


def test_nothing_of_that_for_a_float_model(small_evo: Path) -> None:
    text = invoke("inspect", small_evo)
    assert "in integers" not in text and "stayed in float" not in text and " type " not in text
    found = json.loads(invoke("inspect", small_evo, "--json"))
    assert found["stayed_float"] == [] and found["integer_kernels"] == 0
    assert "int8" not in invoke("profile", small_evo, "--repeat", "1")
    assert json.loads(invoke("profile", small_evo, "--repeat", "1", "--json"))["integer_peak_gops_per_s"] is None


def test_profile_compares_integer_kernels_with_the_integer_peak(quantized_evo: Path) -> None:
    found = json.loads(invoke("profile", quantized_evo, "--repeat", "3", "--json"))
    peaks = {"float32": found["peak_gflops_per_s"], "int8": found["integer_peak_gops_per_s"]}
    convolutions = [kernel for kernel in found["kernels"] if "conv2d" in kernel["operator"]]
    assert {kernel["dtype"] for kernel in convolutions} == {"float32", "int8"}
    for kernel in convolutions:
        assert kernel["peak_share"] == pytest.approx(kernel["gflops_per_s"] / peaks[kernel["dtype"]])
    text = invoke("profile", quantized_evo, "--repeat", "3", "--all")
    head, *lines = text.split("\n\n")[0].splitlines()
    assert "type" in head and "GOP/s" in head and max(len(line.rstrip()) for line in (head, *lines)) <= 120
    assert "GFLOP/s, " in text and "GOP/s in int8, " in text
