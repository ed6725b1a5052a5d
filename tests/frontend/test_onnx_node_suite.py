"""The script that runs the operator tests of the onnx package: what it binds, how it compares, how it counts."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from evo_tvm.errors import ModelError, UnsupportedOperatorError
from tests.frontend._models import parse

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "onnx_node_suite"


@pytest.fixture(scope="module")
def suite() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("onnx_node_suite", str(SCRIPT))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


def test_operands_that_decide_shapes_are_bound(suite: ModuleType) -> None:
    model = parse("(float[2,3] x, int64[1] shape) => (float[6] y) { y = Reshape(x, shape) }")
    values = {"x": np.ones((2, 3), np.float32), "shape": np.array([6])}
    bound, names = suite.bind_shape_operands(model, values)
    assert names == {"shape"}
    assert [value.name for value in bound.graph.input] == ["x"]
    assert [value.name for value in model.graph.input] == ["x", "shape"]


def test_operands_that_reach_a_shape_by_arithmetic_are_bound(suite: ModuleType) -> None:
    model = parse("(float[2,3] x, int64 n) => (float[k] y) { a = Unsqueeze(n, z) y = Reshape(x, a) }")
    _, names = suite.bind_shape_operands(model, {"x": np.ones((2, 3), np.float32), "n": np.array(6)})
    assert names == {"n"}


@pytest.mark.parametrize(
    "graph",
    [
        "(float[2,3] x, float v, int64[4] p) => (float[a,b] y) { y = Pad(x, p, v) }",
        "(float[6] x, float v, int64[4] p) => (float[a,b] y) { h = Shape(x) y = Expand(v, h) }",
        "(float[6] x, float v, int64[4] p) => (float[4] y) { y = Gather(x, p) }",
    ],
)
def test_data_is_never_bound(suite: ModuleType, graph: str) -> None:
    values: dict[str, Any] = {"x": np.ones(6, np.float32), "v": np.float32(1), "p": np.zeros(4, np.int64)}
    _, names = suite.bind_shape_operands(parse(graph), {k: np.asarray(v) for k, v in values.items()})
    assert names <= {"p"}
    assert ("Pad" in graph) == (names == {"p"})


def test_comparison(suite: ModuleType) -> None:
    one = np.array([1.0, np.nan], np.float32)
    suite.compare([one], [one * np.float32(1.0005)], 1e-3, 1e-7)
    for wrong in ([one + 1], [one.astype(np.float64)], [one[:1]], [one, one]):
        with pytest.raises(suite.Mismatch):
            suite.compare(wrong, [one], 1e-3, 1e-7)
    with pytest.raises(suite.Mismatch, match="wrong value"):
        suite.compare([np.array([10000])], [np.array([10001])], 1e-3, 1e-7)


def test_reasons(suite: ModuleType) -> None:
    unsupported = UnsupportedOperatorError("2 unsupported operators: Foo (1x: a); x.y::Bar (2x: b, c)")
    assert suite.classify(unsupported)[0] == "unsupported operator Foo, x.y::Bar"
    assert suite.classify(ModelError("output 'y' has a shape that depends on x"))[0] == "shape depends on values"
    assert suite.classify(ValueError("no"))[0] == "ValueError while compiling or running"


@pytest.mark.slow
def test_the_script_counts_every_test() -> None:
    command = [sys.executable, str(SCRIPT), "--filter", "^test_(relu|add|resize_upsample_scales_nearest)$", "--json"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert result["total"] > 1500
    assert {test["name"]: test["reason"] for test in result["results"]} == {
        "test_add": "passed",
        "test_relu": "passed",
        "test_resize_upsample_scales_nearest": "passed",
    }
