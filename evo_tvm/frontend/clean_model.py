"""Clean an ONNX model up: functions inlined, constants folded, dead nodes and dead weights removed.

`Shape(x) -> Gather -> Concat -> Reshape`  =>  `Reshape(x, constant)` once the sizes of x are known.

docs/adr/0004-onnx-clean-up.md says why this stands on onnxscript.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir
from onnx.reference.ops import load_op
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants_ir

# Elements; a constant that follows from constants is worth its bytes: kernels need it as a constant.
_NO_LIMIT = 1 << 60
# One round folds what is known, the next what the shapes found since make known; light models need two.
_MAX_ROUNDS = 6
#: Element types that only store numbers: TVM's conversions from and to them are missing or wrong.
STORAGE_TYPES = frozenset(
    kind for kind in ir.DataType if kind.name.startswith(("INT4", "UINT4", "INT2", "UINT2", "FLOAT4", "FLOAT8"))
)
_FOLDED_WITH_SEVERAL_OUTPUTS = frozenset({"Split", "TopK", "Unique"})


def clean_model(model: ir.Model) -> None:
    """Simplify `model` in place; the sizes of its inputs should be fixed first, names of nodes are kept."""
    with _quiet():
        if model.functions:
            common.InlinePass()(model)
        drop_initializers_from_inputs(model)
        for _ in range(_MAX_ROUNDS):
            infer_shapes(model)
            folded = fold_constants_ir(
                model,
                onnx_shape_inference=False,
                input_size_limit=_NO_LIMIT,
                output_size_limit=_NO_LIMIT,
                should_fold=_should_fold,
            )
            several = _fold_several_outputs(model)
            common.RemoveUnusedNodesPass()(model)
            if not folded.modified and not several:
                break
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        common.IdentityEliminationPass()(model)
        common.RemoveUnusedNodesPass()(model)


def infer_shapes(model: ir.Model) -> None:
    """Fill in the shapes and types of the values of `model`, in place, as far as ONNX can tell."""
    with _quiet():
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)


def drop_initializers_from_inputs(model: ir.Model) -> None:
    """Files of IR version 3 list every weight among the inputs; a weight that can change cannot be folded."""
    inputs = model.graph.inputs
    for value in [value for value in inputs if value.is_initializer()]:
        inputs.remove(value)


def _should_fold(node: ir.Node) -> bool | None:
    """Fold two operators that onnxscript keeps, to keep files small: ConstantOfShape, and DequantizeLinear of types
    that have no arithmetic of their own; leave the rest to onnxscript."""
    stored = node.inputs[0].dtype if node.inputs and node.inputs[0] is not None else None
    unpacks = node.op_type == "DequantizeLinear" and stored in STORAGE_TYPES
    return True if node.op_type == "ConstantOfShape" or unpacks else None


def _fold_several_outputs(model: ir.Model) -> bool:
    """Fold nodes of constants with several outputs (Split of a shape), which onnxscript leaves; tell if any was."""
    changed = False
    opset = model.opset_imports.get("", 1)
    for graph in list(model.graphs()):
        for node in graph:
            if len(node.outputs) < 2 or node.domain or node.op_type not in _FOLDED_WITH_SEVERAL_OUTPUTS:
                continue
            tensors = [None if value is None else ir.convenience.get_const_tensor(value) for value in node.inputs]
            if any(tensor is None and value is not None for tensor, value in zip(tensors, node.inputs, strict=True)):
                continue
            attributes = {name: attribute.value for name, attribute in node.attributes.items()}
            inputs = [None if tensor is None else tensor.numpy() for tensor in tensors]
            arrays = load_op("", node.op_type, opset).eval(*inputs, **attributes)
            constants = [ir.node("Constant", [], {"value": ir.tensor(array)}, name=node.name) for array in arrays]
            values = [constant.outputs[0] for constant in constants][: len(node.outputs)]
            ir.convenience.replace_nodes_and_values(graph, node, [node], constants, node.outputs, values)
            changed = True
    return changed


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' remarks about operators that they do not know out of the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
