"""ONNX operators that are converted straight to Relax: those that TVM's importer lacks or spells out at length.

A converter takes the block builder, the operands as Relax expressions (None where left out) and the attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from tvm import relax, te, tirx
from tvm.ir import GenericConst

from evo_tvm.frontend.operators import indexing

Operands: TypeAlias = "Sequence[Any]"
Converter: TypeAlias = Callable[[relax.BlockBuilder, Operands, dict[str, Any]], relax.Expr]


def _clip(builder: relax.BlockBuilder, operands: Operands, attributes: dict[str, Any]) -> relax.Expr:
    """relax.clip where the bounds are constants, as in ReLU6; TVM's importer tests each bound for NaN at run time."""
    x, dtype = operands[0], operands[0].ty.dtype.dtype
    bounds = []
    for index, name in ((1, "min"), (2, "max")):
        bound = operands[index] if index < len(operands) else None
        if bound is None and name in attributes:
            bound = relax.const(attributes[name], dtype)
        bounds.append(bound)
    low, high = bounds
    if isinstance(low, GenericConst) and isinstance(high, GenericConst) and dtype == "float32":
        return relax.op.clip(x, *(float(bound.value.numpy().reshape(-1)[0]) for bound in (low, high)))
    if low is not None:
        x = relax.op.maximum(x, low)
    return x if high is None else relax.op.minimum(x, high)


def _cumulative_product(builder: relax.BlockBuilder, operands: Operands, attributes: dict[str, Any]) -> relax.Expr:
    """relax.cumprod, with the axis turned round where it runs from the end."""
    x, axis = operands
    if not isinstance(axis, GenericConst):
        raise ValueError("the axis of CumProd must be a constant")
    along = int(axis.value.numpy().reshape(-1)[0])
    backwards, exclusive = bool(attributes.get("reverse", 0)), bool(attributes.get("exclusive", 0))
    dtype = x.ty.dtype.dtype
    x = relax.op.flip(x, along) if backwards else x
    x = relax.op.cumprod(x, along, dtype, exclusive=exclusive)
    return relax.op.flip(x, along) if backwards else x


def _bit_cast(builder: relax.BlockBuilder, operands: Operands, attributes: dict[str, Any]) -> relax.Expr:
    """The same bits as another type of the same width."""
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(attributes["to"]))
    if operands[0].ty.dtype.dtype == "bool":
        return relax.op.astype(operands[0], dtype)
    if np.dtype(dtype).itemsize != np.dtype(operands[0].ty.dtype.dtype).itemsize:
        raise ValueError(f"BitCast to {dtype}, which has another width")

    def reinterpret(x: te.Tensor) -> te.Tensor:
        return te.compute(x.shape, lambda *at: tirx.reinterpret(dtype, x(*at)), name="bit_cast")

    return builder.call_te(reinterpret, operands[0], primfunc_name_hint="bit_cast")


CONVERTERS: dict[str, Converter] = {
    "BitCast": _bit_cast,
    "Clip": _clip,
    "CumProd": _cumulative_product,
    "Gather": indexing.gather,
    "GatherElements": indexing.gather_elements,
    "GatherND": indexing.gather_nd,
    "ScatterND": indexing.scatter_nd,
}
