"""Converters of Gather and Scatter: negative indices count from ends that are known, where TVM computes them.

TVM's importer writes shape_of(x) into the graph for each of these operators, which needs its virtual machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst


def gather(builder: relax.BlockBuilder, operands: Sequence[Any], attributes: dict[str, Any]) -> relax.Expr:
    """x.take(indices, axis)."""
    x, indices = (_tensor(builder, operand) for operand in operands)
    axis = attributes.get("axis", 0)
    return relax.op.take(x, _from_start(builder, indices, _sizes(x)[axis]), axis)


def gather_elements(builder: relax.BlockBuilder, operands: Sequence[Any], attributes: dict[str, Any]) -> relax.Expr:
    """numpy.take_along_axis(x, indices, axis)."""
    x, indices = (_tensor(builder, operand) for operand in operands)
    axis = attributes.get("axis", 0) % len(_sizes(x))
    return relax.op.gather_elements(x, _from_start(builder, indices, _sizes(x)[axis]), axis)


def gather_nd(builder: relax.BlockBuilder, operands: Sequence[Any], attributes: dict[str, Any]) -> relax.Expr:
    """x[tuple(indices[..., i] for i)], after the leading `batch_dims` axes."""
    x, indices = (_tensor(builder, operand) for operand in operands)
    batch = attributes.get("batch_dims", 0)
    ends = _sizes(x)[batch : batch + _sizes(indices)[-1]]
    return relax.op.gather_nd(x, _from_start(builder, indices, ends), batch)


def scatter_nd(builder: relax.BlockBuilder, operands: Sequence[Any], attributes: dict[str, Any]) -> relax.Expr:
    """x with `updates` put, or added, ... at `indices`."""
    x, indices, updates = (_tensor(builder, operand) for operand in operands)
    reduction = attributes.get("reduction", b"none").decode()
    ends = _sizes(x)[: _sizes(indices)[-1]]
    return relax.op.scatter_nd(
        x, _from_start(builder, indices, ends), updates, "update" if reduction == "none" else reduction
    )


def _tensor(builder: relax.BlockBuilder, value: relax.Expr) -> relax.Expr:
    """Return a shape as a tensor; tensors as they are."""
    return builder.normalize(relax.op.shape_to_tensor(value)) if isinstance(value, relax.ShapeExpr) else value


def _sizes(x: relax.Expr) -> list[int]:
    """Return the sizes of `x`, which are static."""
    return [int(size) for size in x.ty.shape]


def _from_start(builder: relax.BlockBuilder, indices: relax.Expr, ends: int | Sequence[int]) -> relax.Expr:
    """Return `indices` with what is negative counted from `ends`, one end or one for each element of the last axis."""
    dtype = indices.ty.dtype.dtype
    if isinstance(indices, GenericConst):
        values = indices.value.numpy()
        return relax.const(tvm.runtime.tensor(np.where(values < 0, values + np.asarray(ends, dtype), values)))
    if dtype.startswith("uint"):
        return indices
    end = relax.const(tvm.runtime.tensor(np.asarray(ends, dtype)))
    below = relax.op.less(indices, relax.const(0, dtype))
    return builder.normalize(relax.op.where(below, relax.op.add(indices, end), indices))
