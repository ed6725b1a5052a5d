"""Dynamic quantization: standard ONNX, near the float model, and ONNX Runtime's integer kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from evo_tvm.errors import ModelError
from evo_tvm.quantize.dynamic import quantize_dynamic
from evo_tvm.quantize.options import QuantizeOptions
from evo_tvm.quantize.prepare import prepare
from tests.onnx_runtime import exact_session
from tests.quantize._models import constant, end_to_end_db, feeds, onnx_model, operators, residual_model

RNG = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / 3).astype(np.float32)


def dense(shape: tuple[int, ...], trans_b: int | None) -> onnx.ModelProto:
    """Two dense layers that read one input, and a third behind them."""
    constants = {"w": weights(7, 5) if trans_b else weights(5, 7), "v": weights(5, 7), "u": weights(7, 3)}
    first = helper.make_node("MatMul", ["x", "w"], ["a"], "first")
    if trans_b is not None:
        constants["b"] = weights(7)
        first = helper.make_node("Gemm", ["x", "w", "b"], ["a"], "first", transB=trans_b)
    nodes = [
        first,
        helper.make_node("MatMul", ["x", "v"], ["c"], "second"),
        helper.make_node("Add", ["a", "c"], ["s"], "sum"),
        helper.make_node("MatMul", ["s", "u"], ["y"], "third"),
    ]
    return onnx_model(nodes, {"x": shape}, constants, ["y"])


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(("shape", "trans_b"), [((4, 5), 0), ((4, 5), 1), ((2, 4, 5), None), ((1, 5), None)])
def test_it_is_near_the_float_model(
    tmp_path: Path, shape: tuple[int, ...], trans_b: int | None, per_channel: bool
) -> None:
    model = dense(shape, trans_b)
    graph = prepare(model)
    assert quantize_dynamic(graph, QuantizeOptions(per_channel=per_channel)) == ("first", "second", "third")
    found = ir.to_proto(graph)
    onnx.checker.check_model(found, full_check=True)
    assert operators(found)["MatMulInteger"] == 3 and operators(found)["DynamicQuantizeLinear"] == 2
    assert constant(found, "first.weight_scale").shape == ((7,) if per_channel else ())
    assert end_to_end_db(model, found, feeds(shape)) > 32
    exact_session(found, str(tmp_path / "optimized.onnx"))
    left = operators(onnx.load(tmp_path / "optimized.onnx"))
    assert left["DynamicQuantizeMatMul"] + left["MatMulIntegerToFloat"] == 3 and not left["MatMulInteger"]


def test_convolutions_and_what_is_skipped_stay() -> None:
    graph = prepare(residual_model())
    assert quantize_dynamic(graph) == ("fc",)
    assert operators(ir.to_proto(graph))["Conv"] == 4
    assert end_to_end_db(residual_model(), ir.to_proto(graph), feeds((1, 3, 8, 8))) > 35
    graph = prepare(dense((4, 5), 0))
    assert quantize_dynamic(graph, QuantizeOptions(skip=("first",), keep_last=True)) == ("second",)


def test_there_is_nothing_dense() -> None:
    model = onnx_model(
        [helper.make_node("Conv", ["x", "w"], ["y"], "c")], {"x": (1, 3, 4, 4)}, {"w": weights(2, 3, 1, 1)}, ["y"]
    )
    with pytest.raises(
        ModelError, match="no dense layer can be quantized\nDynamic quantization is for Gemm and MatMul"
    ):
        quantize_dynamic(prepare(model))
