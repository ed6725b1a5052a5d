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

from evo_tvm.passes._linear import linear
from evo_tvm.passes._rewrite import Graph, Rule, retyped, rewriting_pass
from evo_tvm.passes._values import (
    Array,
    along,
    array_of,
    channel_vector,
    constant,
    dtype_of,
    is_float,
    same_type,
)


@dataclass(frozen=True)
class _Found:
    call: Call  # producer * scale, or (producer + bias) * scale
    producer: Expr
    bias: Expr | None


def _through_bias(graph: Graph, call: Call) -> _Found | None:
    """`call`'s left operand, and the constant bias added to it where there is one; the right one is a constant."""
    if array_of(call.args[1]) is None or not same_type(call, call.args[0]):
        return None
    add = graph.producer(call.args[0], "relax.add")
    if add is None or array_of(add.args[1]) is None:
        return _Found(call, call.args[0], None)
    return _Found(call, add.args[0], add.args[1])


def _shared(graph: Graph, found: _Found) -> str | None:
    if graph.only_use(found.call.args[0]) and graph.only_use(found.producer):
        return None
    return "the value before the scale is used elsewhere too"


class _IntoWeight(Rule[_Found]):
    roots: ClassVar[tuple[str, ...]] = ("relax.multiply",)

    def match(self, graph: Graph, value: Expr) -> _Found | None:
        found = _through_bias(graph, value)
        return found if found is not None and linear(graph, found.producer) is not None else None

    def check(self, graph: Graph, found: _Found) -> str | None:
        producer = linear(graph, found.producer)
        assert producer is not None
        scale = channel_vector(found.call.args[1], producer.shape, producer.axis)
        if scale is None:
            return "the scale is not one constant for each channel"
        if not np.isfinite(scale).all():
            return "the scale is not finite"
        if found.bias is not None and channel_vector(found.bias, producer.shape, producer.axis) is None:
            return "the bias before the scale is not one constant for each channel"
        return _shared(graph, found)

    def rewrite(self, graph: Graph, found: _Found) -> Expr:
        producer = linear(graph, found.producer)
        assert producer is not None
        scale = channel_vector(found.call.args[1], producer.shape, producer.axis)
        assert scale is not None
        scaled = graph.emit(producer.scaled(scale), producer.name)
        if found.bias is None:
            return scaled
        bias = channel_vector(found.bias, producer.shape, producer.axis)
        assert bias is not None
        shift = along(bias * scale, len(producer.shape), producer.axis, producer.dtype)
        return relax.op.add(scaled, shift)


class _IntoScale(Rule[_Found]):
    roots: ClassVar[tuple[str, ...]] = ("relax.multiply",)

    def match(self, graph: Graph, value: Expr) -> _Found | None:
        found = _through_bias(graph, value)
        if found is None or not is_float(dtype_of(value)):
            return None
        inner = graph.producer(found.producer, "relax.multiply")
        return found if inner is not None and array_of(inner.args[1]) is not None else None

    def check(self, graph: Graph, found: _Found) -> str | None:
        inner = graph.producer(found.producer)
        assert inner is not None
        if not same_type(inner, inner.args[0]) or not same_type(found.call, inner):
            return "one of the scales makes the tensor larger"
        scales = [found.call.args[1], inner.args[1], *([] if found.bias is None else [found.bias])]
        small = max(array_of(s).size for s in scales)  # type: ignore[union-attr]
        if _product(found.call.args[1], inner.args[1]).size > small:
            return "the product of the scales is larger than either"
        return _shared(graph, found)

    def rewrite(self, graph: Graph, found: _Found) -> Expr:
        inner = graph.producer(found.producer)
        assert inner is not None
        scale, dtype = found.call.args[1], dtype_of(found.call)
        scaled = retyped(inner, [inner.args[0], constant(_product(scale, inner.args[1]), dtype)])
        if found.bias is None:
            return scaled
        return relax.op.add(graph.emit(scaled), constant(_product(scale, found.bias), dtype))


def _product(a: Expr, b: Expr) -> Array:
    return array_of(a).astype(np.float64) * array_of(b)  # type: ignore[union-attr,no-any-return,operator]


fold_scale = rewriting_pass("fold_scale", lambda: [_IntoWeight(), _IntoScale()])
