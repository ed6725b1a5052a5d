"""conv2d(x * s, w) => conv2d(x, w * s); conv2d(x + b, w) => conv2d(x, w) + sum(w * b).

`s` and `b` are constants with one value for each input channel, as in a normalization of the input or before a matrix
product. The second is exact only where the convolution pads nothing, since the padding's zeros come after `+ b`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm import relax
from tvm.ir import Call, Expr

from evo_tvm.passes._linear import Linear, linear, linear_call, scaled_weight_inputs
from evo_tvm.passes._rewrite import Graph, Rule, operator_name, retyped, rewriting_pass
from evo_tvm.passes._values import Array, along, channel_vector, is_constant, same_type, shape_of, values_of

_ROOTS = ("relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d", "relax.matmul")


@dataclass(frozen=True)
class _Found:
    consumer: Linear
    before: Call  # x * s or x + b

    def vector(self) -> Array | None:
        """s or b, one value an input channel."""
        shape = shape_of(self.before)
        assert shape is not None
        axis = len(shape) - 1 if operator_name(self.consumer.call) == "relax.matmul" else 1
        return channel_vector(self.before.args[1], shape, axis)


class _Input(Rule[_Found]):
    roots: ClassVar[tuple[str, ...]] = _ROOTS
    operator: ClassVar[str]

    def match(self, graph: Graph, value: Expr) -> _Found | None:
        before, consumer = graph.producer(value.args[0], self.operator), linear_call(value, graph.root_name)
        if before is None or consumer is None or not is_constant(before.args[1]):
            return None
        return _Found(consumer, before) if same_type(before, before.args[0]) else None

    def check(self, graph: Graph, found: _Found) -> str | None:
        vector = found.vector()
        if vector is None:
            return "the constant is not one value for each input channel"
        if not np.isfinite(vector).all():
            return "the constant is not finite"
        weight = shape_of(found.consumer.call.args[1])
        if operator_name(found.consumer.call) == "relax.matmul" and weight is not None and len(weight) != 2:
            return "the weight is not a matrix"
        return None if graph.only_use(found.consumer.call.args[0]) else "the operator's input is used elsewhere too"


class _Scale(_Input):
    operator = "relax.multiply"

    def rewrite(self, graph: Graph, found: _Found) -> Expr:
        vector, call = found.vector(), found.consumer.call
        assert vector is not None
        return retyped(call, [found.before.args[0], scaled_weight_inputs(call, vector)])


class _Shift(_Input):
    operator = "relax.add"

    def match(self, graph: Graph, value: Expr) -> _Found | None:
        found = super().match(graph, value)  # what is the bias of another operator costs nothing where it is
        return None if found is None or linear(graph, found.before.args[0]) is not None else found

    def check(self, graph: Graph, found: _Found) -> str | None:
        call = found.consumer.call
        if operator_name(call) != "relax.matmul" and any(int(width) for width in call.attrs.padding):
            return "the convolution pads with zeros, which the addition does not shift"
        return super().check(graph, found)

    def rewrite(self, graph: Graph, found: _Found) -> Expr:
        vector, consumer = found.vector(), found.consumer
        assert vector is not None
        plain = graph.emit(retyped(consumer.call, [found.before.args[0], consumer.call.args[1]]), consumer.name)
        shift = along(_response(consumer.call, vector), len(consumer.shape), consumer.axis, consumer.dtype)
        return relax.op.add(plain, shift)


def _response(call: Call, vector: Array) -> Array:
    """What each output channel gives for an input whose channels are `vector` everywhere."""
    weight = values_of(call.args[1])
    if operator_name(call) == "relax.matmul":
        return vector @ weight.astype(np.float64)
    groups = int(call.attrs.groups)
    taps = weight.astype(np.float64).reshape(groups, weight.shape[0] // groups, weight.shape[1], -1).sum(axis=3)
    response: Array = np.einsum("goi,gi->go", taps, vector.reshape(groups, -1))
    return response.reshape(-1)


fold_input_scale = rewriting_pass("fold_input_scale", lambda: [_Scale(), _Shift()])
