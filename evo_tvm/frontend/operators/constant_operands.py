"""Operators that TVM imports only with constant operands, or in some types, written so that it takes them all."""

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


def _constant(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """Constant(value_ints=...) => Constant(value=...)."""
    array = constant(node.outputs[0])
    if "value" in node.attributes or array is None:
        raise CannotRewrite("it holds a tensor already")
    return [op.const(array)]


def _one_hot(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """OneHot(indices, depth, values) => where(indices == 0, 1, ... depth-1, values[1], values[0]) on a new axis."""
    indices, depth, values = required(node, 0), constant(operand(node, 1)), required(node, 2)
    if depth is None:
        raise CannotRewrite("its depth is not known")
    count, rank = int(depth.reshape(-1)[0]), len(static_shape(indices))
    axis = attribute(node, "axis", -1) % (rank + 1)
    sizes = [1] * (rank + 1)
    sizes[axis] = count
    places = op.const(np.arange(count).reshape(sizes), np.int64)
    given = op.shape_op("Unsqueeze", op.op("Cast", indices, to=int(ir.DataType.INT64)), [axis])
    # A negative index counts from the end; the place of any other is itself, in range or not.
    from_end = op.op("Add", given, op.const(count, np.int64))
    place = op.op("Where", op.op("Less", given, op.const(0, np.int64)), from_end, given)
    off, on = (op.op("Gather", values, op.const(index, np.int64), axis=0) for index in (0, 1))
    return [op.op("Where", op.op("Equal", place, places), on, off)]


def _compress(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """Compress by a constant condition => Gather of the places where it holds."""
    condition, axis, x = constant(operand(node, 1)), attribute(node, "axis"), required(node, 0)
    if condition is None:
        raise CannotRewrite("its condition is not known, so neither is the shape of its result")
    flat = x if axis is not None else op.shape_op("Reshape", x, [-1])
    return [op.op("Gather", flat, op.const(np.flatnonzero(condition), np.int64), axis=axis or 0)]


def _pad(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """Pad with a value computed at run time => where(inside, pad with 0, value)."""
    pads, value, axes = constant(operand(node, 1)), operand(node, 2), operand(node, 3)
    if value is None or constant(value) is not None or attribute(node, "mode", "constant") != "constant":
        raise CannotRewrite("its value is constant")
    if pads is None or (pads < 0).any():
        raise CannotRewrite("its pads are not known, or negative")
    shape = static_shape(required(node, 0))
    along = constant(axes) if axes is not None else np.arange(len(shape))
    if along is None:
        raise CannotRewrite("its axes are not known")
    widths = [(0, 0)] * len(shape)
    for index, axis in enumerate(along):
        widths[int(axis)] = (int(pads[index]), int(pads[index + len(along)]))
    inside = op.const(np.pad(np.ones(shape, np.bool_), widths))
    before, after = zip(*widths, strict=True)
    padded = op.op("Pad", required(node, 0), op.const([*before, *after], np.int64))
    return [op.op("Where", inside, padded, op.shape_op("Reshape", value, []))]


def _power(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """Pow of two types => Pow of one; of integers => of float64, which holds their powers up to 2**53."""
    base, exponent = required(node, 0), required(node, 1)
    dtype, other = known_dtype(base), known_dtype(exponent)
    if not dtype.is_floating_point() and not other.is_floating_point():
        wide = op.op("Pow", op.cast(base, ir.DataType.DOUBLE), op.cast(exponent, ir.DataType.DOUBLE))
        return [op.cast(wide, dtype)]
    if dtype == other:
        raise CannotRewrite("its operands have one type")
    if other.is_floating_point() and not dtype.is_floating_point():
        return [op.cast(op.op("Pow", op.cast(base, other), exponent), dtype)]
    return [op.op("Pow", base, op.cast(exponent, dtype))]


def _eye_like(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """EyeLike depends on the shape of its operand alone: it is a constant."""
    x = required(node, 0)
    given = attribute(node, "dtype")
    dtype = known_dtype(x) if given is None else ir.DataType(given)
    rows, columns = static_shape(x)
    return [op.const(np.eye(rows, columns, attribute(node, "k", 0)), dtype)]


def _elu(op: Builder, node: ir.Node) -> Sequence[ir.Value]:
    """Elu of other types than float32, in which TVM mixes types, is computed in float32."""
    x = required(node, 0)
    dtype = known_dtype(x)
    if dtype == ir.DataType.FLOAT:
        raise CannotRewrite("it is of float32")
    wide = op.op("Elu", op.cast(x, ir.DataType.FLOAT), alpha=attribute(node, "alpha", 1.0))
    return [op.cast(wide, dtype)]


REWRITES: dict[tuple[str, str], Rewrite] = {
    ("", "Compress"): _compress,
    ("", "Constant"): _constant,
    ("", "Elu"): _elu,
    ("", "EyeLike"): _eye_like,
    ("", "OneHot"): _one_hot,
    ("", "Pad"): _pad,
    ("", "Pow"): _power,
}
