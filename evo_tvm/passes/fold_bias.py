"""conv2d(x, w) + b + c => conv2d(x, w) + (b + c); x + b + c => x + (b + c).

`b` and `c` are constants. What is left of the bias of a convolution has shape `(1, C, 1, 1)`, of a matrix product
`(N,)`, however it was written: a scalar, `(C, 1, 1)` or `(1, N)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm.ir import Call, Expr

from evo_tvm.passes._linear import linear
from evo_tvm.passes._rewrite import Graph, Rule, retyped, rewriting_pass
from evo_tvm.passes._values import along, array_of, channel_vector, constant, dtype_of, same_type, shape_of


@dataclass(frozen=True)
class _Found:
    outer: Call
    inner: Call


class _AddBiases(Rule[_Found]):
    roots: ClassVar[tuple[str, ...]] = ("relax.add",)

    def match(self, graph: Graph, value: Expr) -> _Found | None:
        inner = graph.producer(value.args[0], "relax.add")
        if inner is None or array_of(value.args[1]) is None or array_of(inner.args[1]) is None:
            return None
        return _Found(value, inner)

    def check(self, graph: Graph, found: _Found) -> str | None:
        if not same_type(found.inner, found.inner.args[0]) or not same_type(found.outer, found.inner):
            return "one of the constants makes the tensor larger"
        a, b = array_of(found.inner.args[1]), array_of(found.outer.args[1])
        assert a is not None and b is not None
        shape = np.broadcast_shapes(a.shape, b.shape)
        if np.prod(shape) > max(a.size, b.size):
            return "the sum of the constants is larger than either"
        return None if graph.only_use(found.outer.args[0]) else "the sum with the first constant is used elsewhere too"

    def rewrite(self, graph: Graph, found: _Found) -> Expr:
        a, b = array_of(found.inner.args[1]), array_of(found.outer.args[1])
        assert a is not None and b is not None
        return retyped(found.outer, [found.inner.args[0], constant(a + b, dtype_of(found.outer))])


class _NormalForm(Rule[Call]):
    roots: ClassVar[tuple[str, ...]] = ("relax.add",)

    def match(self, graph: Graph, value: Expr) -> Call | None:
        producer = linear(graph, value.args[0])
        if producer is None or array_of(value.args[1]) is None or not same_type(value, value.args[0]):
            return None
        rank, last = len(producer.shape), producer.axis == len(producer.shape) - 1
        normal = (producer.channels,) if last else (1, producer.channels, *[1] * (rank - 2))
        return None if shape_of(value.args[1]) == normal else value

    def check(self, graph: Graph, found: Call) -> str | None:
        producer = linear(graph, found.args[0])
        assert producer is not None
        bias = channel_vector(found.args[1], producer.shape, producer.axis)
        return "the constant is not one value for each channel" if bias is None else None

    def rewrite(self, graph: Graph, found: Call) -> Expr:
        producer = linear(graph, found.args[0])
        assert producer is not None
        bias = channel_vector(found.args[1], producer.shape, producer.axis)
        assert bias is not None
        return retyped(found, [found.args[0], along(bias, len(producer.shape), producer.axis, producer.dtype)])


fold_bias = rewriting_pass("fold_bias", lambda: [_AddBiases(), _NormalForm()])
