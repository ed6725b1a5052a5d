"""The float model as quantization wants it: clean, in a new operator set, batch normalizations folded."""

from __future__ import annotations

import os

import onnx
import onnx.version_converter
import onnx_ir as ir

from evo_tvm.errors import ModelError
from evo_tvm.frontend.clean_model import clean_model, drop_initializers_from_inputs, infer_shapes
from evo_tvm.frontend.read_model import ModelSource, read_model
from evo_tvm.quantize.fold_affine import fold_affine

#: Quantization per channel came with 13.
LEAST_OPSET = 13
#: Operators that only a quantized model has.
_QUANTIZED = frozenset(
    "QuantizeLinear DequantizeLinear DynamicQuantizeLinear QLinearConv QLinearMatMul ConvInteger MatMulInteger "
    "QLinearAdd QLinearMul QGemm DynamicQuantizeMatMul MatMulIntegerToFloat".split()
)


def prepare(model: ModelSource) -> ir.Model:
    """A clean copy of the float model `model`, of operator set 13 at least.

    Raises ModelError: it cannot be read, is quantized already, or its operator set is too old to be converted.
    """
    graph = read_model(model)
    where = None if isinstance(model, onnx.ModelProto) else os.fspath(model)
    _check_is_float(graph, where)
    graph = ir.external_data.load_to_model(graph)  # the result has no folder beside which such data could lie
    drop_initializers_from_inputs(graph)
    if graph.opset_imports.get("", 1) < LEAST_OPSET:
        graph = _upgrade(graph, where)
    clean_model(graph)
    fold_affine(graph)
    infer_shapes(graph)
    return graph


def is_quantized(model: ModelSource) -> bool:
    """Whether `model` computes with integers, or converts to them, as a quantized one does.

    Raises ModelError: it cannot be read.
    """
    return bool(_quantized_nodes(read_model(model)))


def _quantized_nodes(model: ir.Model) -> list[ir.Node]:
    return [node for graph in model.graphs() for node in graph if node.op_type in _QUANTIZED]


def _check_is_float(model: ir.Model, where: str | None) -> None:
    found = _quantized_nodes(model)
    if found:
        raise ModelError(
            f"the model is quantized already: {len(found)} of its nodes compute with integers or convert to them, "
            f"the first is {found[0].op_type} '{found[0].name}'",
            where=where,
            hint="Compile it as it is, or quantize the float model that it was made from.",
        )


def _upgrade(model: ir.Model, where: str | None) -> ir.Model:
    """The model in a newer operator set."""
    old = model.opset_imports.get("", 1)
    try:
        converted = onnx.version_converter.convert_version(ir.to_proto(model), LEAST_OPSET)
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise ModelError(
            f"operator set {old} cannot be converted to {LEAST_OPSET}, which quantization needs: "
            f"{lines[-1] if lines else type(error).__name__}",
            where=where,
            hint="Export the model again with a newer operator set.",
        ) from error
    return ir.serde.deserialize_model(converted)
