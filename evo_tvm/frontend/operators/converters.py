"""ONNX operators that are converted straight to Relax: those that TVM's importer lacks or spells out at length.

A converter takes the block builder, the operands as Relax expressions (None where left out) and the attributes.
"""

from __future__ import annotations

import math
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


def _local_response_normalization(
    builder: relax.BlockBuilder, operands: Operands, attributes: dict[str, Any]
) -> relax.Expr:
    """x * (bias + alpha / size * (sum of x^2 over `size` channels)) ^ -beta, the sum as a 1x1 convolution.

    Its weights are a band of constants. So all of it stays in the convolutions' layout, and nothing in it is slower
    than a small convolution; TVM's importer writes a 3-D average pool.
    """
    (x,), size = operands, int(attributes["size"])
    shape = [int(e) for e in x.ty.shape.values]
    channel = np.arange(shape[1])
    offset = channel[None, :] - channel[:, None]  # of the channel that is read from the one that is written
    inside = (offset >= -((size - 1) // 2)) & (offset <= size // 2)
    weight = (inside * (attributes.get("alpha", 1e-4) / size)).astype(np.float32).reshape(shape[1], shape[1], 1, 1)
    image = x if len(shape) == 4 else relax.op.reshape(x, (*shape[:2], math.prod(shape[2:]), 1))
    total = relax.op.nn.conv2d(relax.op.multiply(image, image), relax.const(weight))
    total = relax.op.add(total, relax.const(float(attributes.get("bias", 1.0)), "float32"))
    power = relax.op.multiply(relax.op.log(total), relax.const(-float(attributes.get("beta", 0.75)), "float32"))
    normal = relax.op.multiply(image, relax.op.exp(power))
    return normal if len(shape) == 4 else relax.op.reshape(normal, shape)


CONVERTERS: dict[str, Converter] = {
    "BitCast": _bit_cast,
    "Clip": _clip,
    "CumProd": _cumulative_product,
    "Gather": indexing.gather,
    "GatherElements": indexing.gather_elements,
    "GatherND": indexing.gather_nd,
    "LRN": _local_response_normalization,
    "ScatterND": indexing.scatter_nd,
}
