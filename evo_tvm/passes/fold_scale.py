"""conv2d(x, w) * s => conv2d(x, w * s); (conv2d(x, w) + b) * s => conv2d(x, w * s) + b * s; x * a * s => x * (a * s).

`s` is a constant, one value a channel or one in all; the same holds for every convolution, transposed convolution and
matrix product with a constant weight. Scales written as division, negation or with the constant on the left are for
`canonicalize` to turn round first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm import relax
from tvm.ir import Call, Expr

from evo_tvm.passes._linear import Linear, linear
from evo_tvm.passes._rewrite import Graph, Rule, retyped, rewriting_pass
from evo_tvm.passes._values import (
    Array,
    along,
    channel_vector,
    constant,
    dtype_of,
    is_constant,
    is_float,
    same_type,
    values_of,
)

_SHARED = "the value before the scale is used elsewhere too"


def _scaled(graph: Graph, call: Call) -> tuple[Expr, Expr | None] | None:
    """x and None of `call` = `x * constant`; x and b where it is `(x + b) * constant`; None where it is neither."""
    if not is_constant(call.args[1]) or not same_type(call, call.args[0]):
        return None
    add = graph.producer(call.args[0], "relax.add")
    if add is None or not is_constant(add.args[1]) or not same_type(add, add.args[0]):
        return call.args[0], None
    return add.args[0], add.args[1]


def _is_shared(graph: Graph, call: Call, data: Expr) -> bool:
    return not (graph.only_use(call.args[0]) and graph.only_use(data))


@dataclass(frozen=True)
class _Weighted:
    producer: Linear
    scale: Array | None
    bias: Array | None
    has_bias: bool
    is_shared: bool


class _IntoWeight(Rule[_Weighted]):
    roots: ClassVar[tuple[str, ...]] = ("relax.multiply",)

    def match(self, graph: Graph, value: Expr) -> _Weighted | None:
        found = _scaled(graph, value)
        producer = None if found is None else linear(graph, found[0])
        if found is None or producer is None:
            return None
        scale = channel_vector(value.args[1], producer.shape, producer.axis)
        bias = None if found[1] is None else channel_vector(found[1], producer.shape, producer.axis)
        return _Weighted(producer, scale, bias, found[1] is not None, _is_shared(graph, value, found[0]))

    def check(self, graph: Graph, found: _Weighted) -> str | None:
        if found.scale is None:
            return "the scale is not one constant for each channel"
        if not np.isfinite(found.scale).all():
            return "the scale is not finite"
        if found.has_bias and found.bias is None:
            return "the bias before the scale is not one constant for each channel"
        return _SHARED if found.is_shared else None

    def rewrite(self, graph: Graph, found: _Weighted) -> Expr:
        assert found.scale is not None
        producer = found.producer
        scaled = graph.emit(producer.scaled(found.scale), producer.name)
        if found.bias is None:
            return scaled
        shift = along(found.bias * found.scale, len(producer.shape), producer.axis, producer.dtype)
        return relax.op.add(scaled, shift)


@dataclass(frozen=True)
class _Scaled:
    call: Call
    inner: Call  # x * a
    bias: Expr | None
    is_shared: bool

    def product(self, constant: Expr) -> Array:
        """The outer scale times another constant, in float64."""
        return values_of(self.call.args[1]).astype(np.float64) * values_of(constant)


class _IntoScale(Rule[_Scaled]):
    roots: ClassVar[tuple[str, ...]] = ("relax.multiply",)

    def match(self, graph: Graph, value: Expr) -> _Scaled | None:
        found = _scaled(graph, value)
        inner = None if found is None else graph.producer(found[0], "relax.multiply")
        if found is None or inner is None or not is_constant(inner.args[1]) or not is_float(dtype_of(value)):
            return None
        return _Scaled(value, inner, found[1], _is_shared(graph, value, found[0]))

    def check(self, graph: Graph, found: _Scaled) -> str | None:
        if not same_type(found.inner, found.inner.args[0]):
            return "the first scale makes the tensor larger"
        outer = values_of(found.call.args[1]).size
        for other in (found.inner.args[1], found.bias):
            if other is not None and found.product(other).size > max(outer, values_of(other).size):
                return "the product of the constants is larger than either"
        return _SHARED if found.is_shared else None

    def rewrite(self, graph: Graph, found: _Scaled) -> Expr:
        dtype = dtype_of(found.call)
        scale = constant(found.product(found.inner.args[1]), dtype)
        scaled = retyped(found.inner, [found.inner.args[0], scale])
        if found.bias is None:
            return scaled
        return relax.op.add(graph.emit(scaled), constant(found.product(found.bias), dtype))


fold_scale = rewriting_pass("fold_scale", lambda: [_IntoWeight(), _IntoScale()])
