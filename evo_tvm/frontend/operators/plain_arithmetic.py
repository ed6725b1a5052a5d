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
    known_dtype,
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


REWRITES: dict[tuple[str, str], Rewrite] = {
    ("", "Det"): _determinant,
    ("", "LpNormalization"): _lp_normalization,
    ("", "Max"): _chain("Max"),
    ("", "Mean"): _mean,
    ("", "Min"): _chain("Min"),
    ("", "Sum"): _chain("Add"),
}
