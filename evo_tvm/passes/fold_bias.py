"""conv2d(x, w) + b + c => conv2d(x, w) + (b + c); x + b + c => x + (b + c).

`b` and `c` are constants. What is left of the bias of a convolution has shape `(1, C, 1, 1)`, of a matrix product
`(N,)`, however it was written: a scalar, `(C, 1, 1)` or `(1, N)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
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
    same_type,
    shape_of,
    values_of,
)


@dataclass(frozen=True)
class _Sums:
    outer: Call
    inner: Call


class AddBiases(Rule[_Sums]):
    roots: ClassVar[tuple[str, ...]] = ("relax.add",)

    def match(self, graph: Graph, value: Expr) -> _Sums | None:
        inner = graph.producer(value.args[0], "relax.add")
        if inner is None or not is_constant(value.args[1]) or not is_constant(inner.args[1]):
            return None
        return _Sums(value, inner)

    def check(self, graph: Graph, found: _Sums) -> str | None:
        if not same_type(found.inner, found.inner.args[0]) or not same_type(found.outer, found.inner):
            return "one of the constants makes the tensor larger"
        a, b = values_of(found.inner.args[1]), values_of(found.outer.args[1])
        if np.prod(np.broadcast_shapes(a.shape, b.shape)) > max(a.size, b.size):
            return "the sum of the constants is larger than either"
        return None if graph.only_use(found.outer.args[0]) else "the sum with the first constant is used elsewhere too"

    def rewrite(self, graph: Graph, found: _Sums) -> Expr:
        total = values_of(found.inner.args[1]) + values_of(found.outer.args[1])
        return retyped(found.outer, [found.inner.args[0], constant(total, dtype_of(found.outer))])


@dataclass(frozen=True)
class _Bias:
    call: Call
    producer: Linear
    bias: Array | None


class _NormalForm(Rule[_Bias]):
    roots: ClassVar[tuple[str, ...]] = ("relax.add",)

    def match(self, graph: Graph, value: Expr) -> _Bias | None:
        producer = linear(graph, value.args[0])
        if producer is None or not is_constant(value.args[1]) or not same_type(value, value.args[0]):
            return None
        rank, last = len(producer.shape), producer.axis == len(producer.shape) - 1
        normal = (producer.channels,) if last else (1, producer.channels, *[1] * (rank - 2))
        if shape_of(value.args[1]) == normal:
            return None
        return _Bias(value, producer, channel_vector(value.args[1], producer.shape, producer.axis))

    def check(self, graph: Graph, found: _Bias) -> str | None:
        return "the constant is not one value for each channel" if found.bias is None else None

    def rewrite(self, graph: Graph, found: _Bias) -> Expr:
        assert found.bias is not None
        producer = found.producer
        bias = along(found.bias, len(producer.shape), producer.axis, producer.dtype)
        return retyped(found.call, [found.call.args[0], bias])


fold_bias = rewriting_pass("fold_bias", lambda: [AddBiases(), _NormalForm()])
