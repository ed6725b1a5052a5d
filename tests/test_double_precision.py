"""float64 models: transcendental functions in vectors, to float64's precision."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import evo_tvm


@pytest.mark.parametrize("operator", ["Exp", "Log", "Tanh", "Sigmoid"])
def test_a_double_function_keeps_its_precision(operator: str) -> None:
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"])],
        "double",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [3, 40])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [3, 40])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    x = np.linspace(0.1, 5, 120).reshape(3, 40)
    exact = {"Exp": np.exp, "Log": np.log, "Tanh": np.tanh, "Sigmoid": lambda v: 1 / (1 + np.exp(-v))}[operator]
    np.testing.assert_allclose(evo_tvm.compile(model).module()(x), exact(x), rtol=1e-14)
