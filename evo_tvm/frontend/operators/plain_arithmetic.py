"""Sum(a, b, c) => Add(Add(a, b), c) and other operators written as arithmetic that fuses with its neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from evo_tvm.frontend.operators.builder import (
    Builder,
    CannotRewrite,
    Rewrite,
    attribute,
    constant,
    known_dtype,
    operand,
    required,
    static_shape,
)


def _chain(op_type: str) -> Rewrite:
    """Return the rewrite of an operator on any number of tensors into one on two at a time (TVM stacks them)."""

    def rewrite(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
        if len(node.inputs) == 2 and op_type == node.op_type:
            raise CannotRewrite("it has two inputs already")
        return [_fold(op, op_type, node)]

    return rewrite


def _fold(op: Builder, op_type: str, node: ir.Node) -> ir.Value:
    """Return op(op(a, b), c) ... over the inputs of `node`."""
    result = required(node, 0)
    for index in range(1, len(node.inputs)):
        result = op.op(op_type, result, required(node, index))
    return result


def _mean(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """Mean(a, b, c) => (a + b + c) / 3."""
    count = op.const(len(node.inputs), known_dtype(required(node, 0)))
    return [op.op("Div", _fold(op, "Add", node), count)]


def _lp_normalization(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """x / norm(x) along an axis, and 0 where the norm is 0."""
    x, axis, order = required(node, 0), attribute(node, "axis", -1), attribute(node, "p", 2)
    norm = op.reduce("ReduceL1" if order == 1 else "ReduceL2", x, [axis])
    zero = op.const(0, known_dtype(x))
    return [op.op("Where", op.op("Equal", norm, zero), zero, op.op("Div", x, norm))]


def _determinant(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """The determinant of small matrices [..., n, n] by cofactors of the first row."""
    x = required(node, 0)
    size = static_shape(x)[-1]
    if size > 4:
        raise CannotRewrite("cofactors of a matrix larger than 4x4 are too many")

    def entry(row: int, column: int) -> ir.Value:
        line = op.op("Gather", x, op.const(row, np.int64), axis=-2)
        return op.op("Gather", line, op.const(column, np.int64), axis=-1)

    entries = [[entry(row, column) for column in range(size)] for row in range(size)]

    def minor(row: int, columns: tuple[int, ...]) -> ir.Value:
        if len(columns) == 1:
            return entries[row][columns[0]]
        total: ir.Value | None = None
        for place, column in enumerate(columns):
            rest = columns[:place] + columns[place + 1 :]
            term = op.op("Mul", entries[row][column], minor(row + 1, rest))
            total = term if total is None else op.op("Sub" if place % 2 else "Add", total, term)
        assert total is not None
        return total

    return [minor(0, tuple(range(size)))]


def _layer_normalization(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """LayerNormalization whose mean and deviation are wanted too, which TVM does not give."""
    if not any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        raise CannotRewrite("only its first output is used")
    x, scale, bias = required(node, 0), required(node, 1), operand(node, 2)
    rank, dtype = len(static_shape(x)), known_dtype(x)
    axes = list(range(attribute(node, "axis", -1) % rank, rank))
    wide = op.cast(x, ir.DataType.FLOAT)
    mean = op.reduce("ReduceMean", wide, axes)
    centred = op.op("Sub", wide, mean)
    variance = op.reduce("ReduceMean", op.op("Mul", centred, centred), axes)
    deviation = op.op("Sqrt", op.op("Add", variance, op.const(attribute(node, "epsilon", 1e-5), np.float32)))
    inverse = op.op("Reciprocal", deviation)
    normal = op.op("Mul", op.op("Mul", centred, inverse), op.cast(scale, ir.DataType.FLOAT))
    if bias is not None:
        normal = op.op("Add", normal, op.cast(bias, ir.DataType.FLOAT))
    return [normal if dtype == ir.DataType.FLOAT else op.op("Cast", normal, to=int(dtype)), mean, inverse]


def _batch_normalization(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """BatchNormalization in training mode normalizes by the batch's own mean and variance, and updates the others."""
    if not attribute(node, "training_mode", 0):
        raise CannotRewrite("it is not in training mode")
    x, momentum = required(node, 0), attribute(node, "momentum", 0.9)
    rank, dtype = len(static_shape(x)), known_dtype(x)
    axes = [axis for axis in range(rank) if axis != 1]
    mean = op.reduce("ReduceMean", x, axes)
    centred = op.op("Sub", x, mean)
    variance = op.reduce("ReduceMean", op.op("Mul", centred, centred), axes)
    scale, bias = (op.shape_op("Reshape", required(node, at), [1, -1, *[1] * (rank - 2)]) for at in (1, 2))
    deviation = op.op("Sqrt", op.op("Add", variance, op.const(attribute(node, "epsilon", 1e-5), dtype)))
    outputs = [op.op("Add", op.op("Mul", op.op("Div", centred, deviation), scale), bias)]
    for place, new in ((3, mean), (4, variance)):
        kept = op.op("Mul", required(node, place), op.const(momentum, known_dtype(node.inputs[place])))
        fresh = op.op("Mul", op.shape_op("Reshape", new, [-1]), op.const(1 - momentum, dtype))
        outputs.append(op.op("Add", kept, fresh))
    return outputs


def _dropout(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """Dropout => the identity, and a mask of ones, unless the model asks for training."""
    x, training = required(node, 0), operand(node, 2)
    asked, ratio = constant(training), constant(operand(node, 1))
    drops = ratio is None or bool(ratio.any())
    if training is not None and drops and (asked is None or asked.any()):
        raise CannotRewrite("it is in training mode")
    return [op.op("Identity", x), op.const(np.ones(static_shape(x), np.bool_))]


def _is_infinite(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """IsInf of one sign, which TVM takes for both."""
    positive, negative = attribute(node, "detect_positive", 1), attribute(node, "detect_negative", 1)
    if positive and negative:
        raise CannotRewrite("it detects both signs")
    x = required(node, 0)
    if not positive and not negative:
        return [op.const(np.zeros(static_shape(x), np.bool_))]
    return [op.op("Equal", x, op.const(np.inf if positive else -np.inf, known_dtype(x)))]


REWRITES: dict[tuple[str, str], Rewrite] = {
    ("", "BatchNormalization"): _batch_normalization,
    ("", "Det"): _determinant,
    ("", "Dropout"): _dropout,
    ("", "IsInf"): _is_infinite,
    ("", "LayerNormalization"): _layer_normalization,
    ("", "LpNormalization"): _lp_normalization,
    ("", "Max"): _chain("Max"),
    ("", "Mean"): _mean,
    ("", "Min"): _chain("Min"),
    ("", "Sum"): _chain("Add"),
}
