"""Clean an ONNX model up: functions inlined, constants folded, dead nodes and dead weights removed.

`Shape(x) -> Gather -> Concat -> Reshape`  =>  `Reshape(x, constant)` once the sizes of x are known.

docs/adr/0001-onnx-clean-up.md says why this stands on onnxscript.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants_ir

# Elements; a constant that follows from constants is worth its bytes: kernels need it as a constant.
_NO_LIMIT = 1 << 60
# One round folds what is known, the next what the shapes found since make known; light models need two.
_MAX_ROUNDS = 6


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
            common.RemoveUnusedNodesPass()(model)
            if not folded.modified:
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
    """Fold ConstantOfShape too (onnxscript keeps it, to keep files small); leave the rest to onnxscript."""
    return True if node.op_type == "ConstantOfShape" else None


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
