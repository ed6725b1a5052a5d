"""Models that tests of RPC need, beside the small one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper


def awkward() -> onnx.ModelProto:
    """Scalar "a" and 2x3 int64 "b" into "sum" (float 2x3), "same" ("b" itself) and "scaled" (a scalar)."""
    return _model(
        [
            helper.make_node("Cast", ["b"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["a", "f"], ["sum"]),
            helper.make_node("Identity", ["b"], ["same"]),
            helper.make_node("Mul", ["a", "a"], ["scaled"]),
        ],
        {"a": (TensorProto.FLOAT, []), "b": (TensorProto.INT64, [2, 3])},
        {"sum": (TensorProto.FLOAT, [2, 3]), "same": (TensorProto.INT64, [2, 3]), "scaled": (TensorProto.FLOAT, [])},
    )


def slow() -> onnx.ModelProto:
    """One that takes milliseconds: "x" times the same 512x512 matrix, over and over."""
    matrix = np.eye(512, dtype=np.float32)[::-1].copy()
    names = ["x", *(f"h{i}" for i in range(7)), "y"]
    return _model(
        [helper.make_node("MatMul", [source, "w"], [result]) for source, result in pairwise(names)],
        {"x": (TensorProto.FLOAT, [512, 512])},
        {"y": (TensorProto.FLOAT, [512, 512])},
        {"w": matrix},
    )


def _model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int]]],
    outputs: dict[str, tuple[int, list[int]]],
    weights: dict[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    values = [[helper.make_tensor_value_info(name, *kind) for name, kind in some.items()] for some in (inputs, outputs)]
    constants = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(nodes, "model", *values, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    return model
