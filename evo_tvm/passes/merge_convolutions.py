"""conv2d(conv2d(x, v) + b, w) => conv2d(x, w v) + w b where one of the two is 1x1; products of matrices likewise.

Only with nothing but a bias between them, and only where the one takes fewer multiplications than the two: a layer that
was factored into two thin ones stays. Weights are multiplied in float64. Exact where zeros that the second convolution
pads stand for themselves: there may be no bias between the two then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm import relax
from tvm.ir import Call, Expr

from evo_tvm.passes._elementwise import single
from evo_tvm.passes._linear import Linear, linear, linear_call
from evo_tvm.passes._rewrite import Graph, Rule, operator_name, rewriting_pass
from evo_tvm.passes._values import Array, along, array_of, channel_vector, constant, is_constant, shape_of, values_of
from evo_tvm.passes.fold_bias import AddBiases

_CONV, _MATMUL = "relax.nn.conv2d", "relax.matmul"


@dataclass(frozen=True)
class _Two:
    first: Linear
    second: Linear
    bias: Array | None  # one value for each of the channels between the two
    has_bias: bool

    @property
    def is_conv(self) -> bool:
        """Two convolutions, else two matrix products."""
        return operator_name(self.second.call) == _CONV


class _Merge(Rule[_Two]):
    roots: ClassVar[tuple[str, ...]] = (_CONV, _MATMUL)

    def match(self, graph: Graph, value: Expr) -> _Two | None:
        second, data = linear_call(value, graph.root_name), value.args[0]
        add = single(graph, data, "relax.add")
        first = linear(graph, data if add is None else add.args[0])
        if first is None or second is None or operator_name(first.call) != operator_name(value):
            return None
        if not graph.only_use(data if add is None else add.args[0]) or not graph.only_use(data):
            return None
        if add is not None and not is_constant(add.args[1]):
            return None
        bias = None if add is None else channel_vector(add.args[1], first.shape, first.axis)
        return _Two(first, second, bias, add is not None)

    def check(self, graph: Graph, found: _Two) -> str | None:
        if found.has_bias and found.bias is None:
            return "the constant between the two is not one value for each channel"
        refusal = _check_convolutions(found) if found.is_conv else _check_products(found)
        return refusal or _check_cost(found)

    def rewrite(self, graph: Graph, found: _Two) -> Expr:
        first, second = found.first, found.second
        weight = _weight(found)
        data, dtype = first.call.args[0], second.dtype
        merged = _convolution(found, data, weight) if found.is_conv else relax.op.matmul(data, constant(weight, dtype))
        if found.bias is None:
            return merged
        w = values_of(second.call.args[1]).astype(np.float64)
        response = w.sum(axis=(2, 3)) @ found.bias if found.is_conv else found.bias @ w
        shift = along(response, len(second.shape), second.axis, dtype)
        return relax.op.add(graph.emit(merged, second.name), shift)


def _is_pointwise(call: Call) -> bool:
    kernel = shape_of(call.args[1])
    return kernel is not None and kernel[2:] == (1, 1) and not any(int(width) for width in call.attrs.padding)


def _check_convolutions(found: _Two) -> str | None:
    first, second = found.first.call, found.second.call
    if int(first.attrs.groups) != 1 or int(second.attrs.groups) != 1:
        return "one of the convolutions is grouped"
    if _is_pointwise(second):
        return None
    if not _is_pointwise(first):
        return "neither of the convolutions is 1x1 without padding"
    if any(int(stride) != 1 for stride in first.attrs.strides):
        return "the first convolution has a stride"
    padded = any(int(width) for width in second.attrs.padding)
    return (
        "the second convolution pads with zeros, which the bias does not shift" if padded and found.has_bias else None
    )


def _check_products(found: _Two) -> str | None:
    matrices = all(int(linear.call.args[1].ty.ndim) == 2 for linear in (found.first, found.second))
    return None if matrices else "one of the weights is not a matrix"


def _check_cost(found: _Two) -> str | None:
    first, second = found.first, found.second
    v, w = shape_of(first.call.args[1]), shape_of(second.call.args[1])
    assert v is not None and w is not None
    two = _multiplications(v, first) + _multiplications(w, second)
    merged = (w[0], v[1], *(max(a, b) for a, b in zip(v[2:], w[2:], strict=True))) if found.is_conv else (v[0], w[1])
    one = _multiplications(merged, second)
    return None if one < two else f"one takes {one} multiplications, the two take {two}"


def _multiplications(weight: tuple[int, ...], result: Linear) -> int:
    return math.prod(weight) * math.prod(result.shape) // result.channels


def _weight(found: _Two) -> Array:
    """The product of the weights, in float64."""
    v, w = (array_of(linear.call.args[1]) for linear in (found.first, found.second))
    assert v is not None and w is not None
    v, w = v.astype(np.float64), w.astype(np.float64)
    if not found.is_conv:
        return v @ w
    return np.tensordot(w[:, :, 0, 0], v, 1) if w.shape[2:] == (1, 1) else np.einsum("omhw,mi->oihw", w, v[:, :, 0, 0])


def _convolution(found: _Two, data: Expr, weight: Array) -> Call:
    first, second = found.first.call.attrs, found.second.call.attrs
    window = first if _is_pointwise(found.second.call) else second
    strides = [int(a) * int(b) for a, b in zip(first.strides, second.strides, strict=True)]
    return relax.op.nn.conv2d(
        data, constant(weight, found.second.dtype), strides, window.padding, window.dilation, 1, "NCHW", "OIHW"
    )


merge_convolutions = rewriting_pass("merge_convolutions", lambda: [AddBiases(), _Merge()])
