"""batch_norm(conv2d(x, w))[0] => conv2d(x, w * scale) + shift; batch_norm(x)[0] => x * scale + shift.

In inference batch normalization is `scale = gamma / sqrt(variance + epsilon)`, `shift = beta - mean * scale` per
channel (Ioffe & Szegedy, 2015); both are computed in float64. The scale goes into the weight of a convolution, grouped,
depthwise or transposed, or of a matrix product, and through a bias between the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm import relax
from tvm.ir import Call, Expr

from evo_tvm.passes._linear import linear
from evo_tvm.passes._rewrite import TUPLE_ITEM, Graph, Rule, rewriting_pass
from evo_tvm.passes._values import Array, along, channel_vector, dtype_of, is_constant, shape_of, values_of


@dataclass(frozen=True)
class _Found:
    norm: Call
    item: int


class _FoldBatchNorm(Rule[_Found]):
    roots: ClassVar[tuple[str, ...]] = (TUPLE_ITEM,)

    def match(self, graph: Graph, value: Expr) -> _Found | None:
        norm = graph.producer(value.tuple_value, "relax.nn.batch_norm")
        return None if norm is None else _Found(norm, int(value.index))

    def check(self, graph: Graph, found: _Found) -> str | None:
        if found.norm.attrs.training:
            return "batch_norm normalizes with the statistics of the batch (training=True)"
        if found.item == 0 and not all(is_constant(arg) for arg in found.norm.args[1:]):
            return "gamma, beta, mean and variance are not all constants"
        shape = shape_of(found.norm.args[0])
        return "the input's shape is not static" if shape is None else None

    def rewrite(self, graph: Graph, found: _Found) -> Expr:
        data, _gamma, _beta, mean, variance = found.norm.args
        if found.item:
            return mean if found.item == 1 else variance
        scale, shift = _scale_and_shift(found.norm)
        shape = shape_of(data)
        assert shape is not None
        rank, axis, dtype = len(shape), int(found.norm.attrs.axis) % len(shape), dtype_of(data)
        bias: Array | None = None
        producer = linear(graph, data) if graph.only_use(data) else None
        call = graph.producer(data, "relax.add")
        if call is not None and graph.only_use(data) and graph.only_use(call.args[0]):
            producer, bias = linear(graph, call.args[0]), channel_vector(call.args[1], shape, axis)
            producer = producer if bias is not None else None
        if producer is not None and producer.axis == axis:
            scaled = graph.emit(producer.scaled(scale), producer.name)
            shift = shift if bias is None else shift + bias * scale
        else:
            scaled = graph.emit(relax.op.multiply(data, along(scale, rank, axis, dtype)))
        return relax.op.add(scaled, along(shift, rank, axis, dtype))


def _scale_and_shift(norm: Call) -> tuple[Array, Array]:
    gamma, beta, mean, variance = (values_of(arg).astype(np.float64) for arg in norm.args[1:])
    scale = 1 / np.sqrt(variance + float(norm.attrs.epsilon))
    if norm.attrs.scale:
        scale = scale * gamma
    shift = -mean * scale
    return scale, shift + beta if norm.attrs.center else shift


fold_batch_norm = rewriting_pass("fold_batch_norm", lambda: [_FoldBatchNorm()])
