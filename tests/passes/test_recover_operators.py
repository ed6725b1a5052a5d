"""recover_operators: what the importer wrote as TIR is an operator again."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import tvm
from onnx import TensorProto, helper, numpy_helper
from tvm import relax, te, topi
from tvm.relax.frontend.onnx import from_onnx

from evo_tvm.passes.fold_constants import fold_constants
from evo_tvm.passes.recover_operators import recover_operators
from tests.passes._check import assert_leaves, assert_rewrites, calls

SHAPE = [1, 2, 5, 4]


def imported(nodes: list[onnx.NodeProto], opset: int, **constants: Any) -> tvm.IRModule:
    """What TVM's importer makes of nodes from x to y."""
    values = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)
    got = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b", "c", "d"])
    graph = helper.make_graph(nodes, "g", [given], [got], values)
    return from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]))


def test_clip_of_attributes() -> None:
    before = imported([helper.make_node("Clip", ["x"], ["y"], min=0.0, max=6.0)], 6)
    assert_rewrites(recover_operators, before, ["maximum", "minimum"], rtol=0)


def test_clip_of_operands() -> None:
    node = helper.make_node("Clip", ["x", "low", "high"], ["y"])
    before = fold_constants(imported([node], 13, low=np.float32(-0.5), high=np.float32(1)))
    assert_rewrites(recover_operators, before, ["maximum", "minimum"], rtol=0)


def test_clip_with_one_bound() -> None:
    before = fold_constants(imported([helper.make_node("Clip", ["x", "low"], ["y"])], 13, low=np.float32(0)))
    assert_rewrites(recover_operators, before, ["maximum"], rtol=0)


@pytest.mark.parametrize("value", [0.0, 1.5, -np.inf])
def test_pad(value: float) -> None:
    node = helper.make_node("Pad", ["x", "widths", "value"], ["y"])
    before = imported([node], 13, widths=np.array([0, 0, 1, 2, 0, 0, 3, 0]), value=np.float32(value))
    after = assert_rewrites(recover_operators, before, ["nn.pad"], rtol=0)
    attrs = calls(after, "nn.pad")[0].attrs
    assert ([int(width) for width in attrs.pad_width], attrs.pad_value) == ([0, 0, 0, 0, 1, 3, 2, 0], value)


def test_leaves_a_reflection() -> None:
    node = helper.make_node("Pad", ["x", "widths"], ["y"], mode="reflect")
    before = imported([node], 13, widths=np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    assert_rewrites(recover_operators, before, ["call_tir"], rtol=0)  # only the name of the output is put right


@pytest.mark.parametrize("name", ["maximum", "pad"])
def test_leaves_another_function_of_the_name(name: str) -> None:
    """An average that calls itself a maximum, and a shift that calls itself a padding."""

    def compute(x: te.Tensor) -> te.Tensor:
        if name == "pad":
            return te.compute(SHAPE, lambda n, c, i, j: te.if_then_else(i < 3, x[n, c, i + 1, j], 0.0))
        return topi.divide(topi.add(x, topi.maximum(x, 0.0)), 2.0)

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(SHAPE, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            output = builder.emit_output(builder.call_te(compute, x, primfunc_name_hint=name))
        builder.emit_func_output(output)
    assert_leaves(recover_operators, builder.get(), "the function is not what TOPI gives for the operator")
