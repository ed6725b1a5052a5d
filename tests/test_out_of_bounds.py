"""Run-time values that would lead outside a tensor: never a crash."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

import evo_tvm


def test_gather_stays_inside_whatever_the_indices_are() -> None:
    graph = helper.make_graph(
        [helper.make_node("Gather", ["x", "indices"], ["y"], axis=0)],
        "gather",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 3]),
            helper.make_tensor_value_info("indices", TensorProto.INT64, [3]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    module = evo_tvm.compile(model).module()
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.testing.assert_array_equal(module(x, np.array([0, -1, 3])), x[[0, -1, 3]])
    np.testing.assert_array_equal(module(x, np.array([0, 10**9, -(10**9)])), x[[0, 3, 0]])
