"""minimum(maximum(x, 0), 6) => clip(x, 0, 6); maximum(x, 0) => relu(x); x * sigmoid(x) => silu(x).

Also two clips in a row (a ReLU is one) as one; `relu(x) + s * min(x, 0)` and `relu(x) - s * relu(-x)` as PReLU, and
PReLU with one slope for all channels, as is `max(x, x * s)`, as LeakyReLU. Hard-sigmoid and hard-swish stay a clip
between additions and multiplications, which a kernel's epilogue takes as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm import relax, tirx
from tvm.ir import Call, Expr

from evo_tvm.passes._rewrite import Graph, Rule, operator_name, rewriting_pass
from evo_tvm.passes._values import Array, channel_vector, constant, dtype_of, is_float, same_type, scalar_of, shape_of

_CLIPS = ("relax.nn.relu", "relax.clip", "relax.maximum", "relax.minimum")


@dataclass(frozen=True)
class _Clip:
    data: Expr
    low: float
    high: float


def _as_clip(call: Call) -> _Clip | None:
    """The bounds that a call keeps its first operand in."""
    data, name = call.args[0], operator_name(call)
    if not is_float(dtype_of(call)) or not same_type(call, data):
        return None
    if name == "relax.nn.relu":
        return _Clip(data, 0.0, np.inf)
    if name == "relax.clip":
        return _Clip(data, *(float(bound.value) for bound in call.args[1:]))
    bound = scalar_of(call.args[1])
    if bound is None or np.isnan(bound):
        return None
    return _Clip(data, float(bound), np.inf) if name == "relax.maximum" else _Clip(data, -np.inf, float(bound))


def _clip(found: _Clip) -> Expr:
    if (found.low, found.high) == (0, np.inf):
        return relax.op.nn.relu(found.data)
    dtype = dtype_of(found.data)
    return relax.op.clip(found.data, tirx.FloatImm(dtype, found.low), tirx.FloatImm(dtype, found.high))


class _Bounds(Rule[_Clip]):
    """`maximum` and `minimum` with a scalar, and clips that have no upper bound."""

    roots: ClassVar[tuple[str, ...]] = ("relax.maximum", "relax.minimum", "relax.clip")

    def match(self, graph: Graph, value: Expr) -> _Clip | None:
        found = _as_clip(value)
        plain = operator_name(value) == "relax.clip" and all(str(b.ty) == dtype_of(value) for b in value.args[1:])
        return None if found is None or (plain and (found.low, found.high) != (0, np.inf)) else found

    def rewrite(self, graph: Graph, found: _Clip) -> Expr:
        return _clip(found)


@dataclass(frozen=True)
class _Two:
    outer: Call
    first: _Clip
    second: _Clip


class _ClipOfClip(Rule[_Two]):
    roots: ClassVar[tuple[str, ...]] = _CLIPS

    def match(self, graph: Graph, value: Expr) -> _Two | None:
        inner = graph.producer(value.args[0], *_CLIPS)
        second, first = _as_clip(value), None if inner is None else _as_clip(inner)
        return None if first is None or second is None else _Two(value, first, second)

    def check(self, graph: Graph, found: _Two) -> str | None:
        if not graph.only_use(found.outer.args[0]):
            return "the value between the two is used elsewhere too"
        if found.first.low > found.first.high or found.second.low > found.second.high:
            return "a lower bound is above its upper bound"
        return None

    def rewrite(self, graph: Graph, found: _Two) -> Expr:
        low, high = np.clip([found.first.low, found.first.high], found.second.low, found.second.high)
        return _clip(_Clip(found.first.data, float(low), float(high)))


class _Silu(Rule[Expr]):
    roots: ClassVar[tuple[str, ...]] = ("relax.multiply",)

    def match(self, graph: Graph, value: Expr) -> Expr | None:
        for data, gate in (value.args, list(value.args)[::-1]):
            sigmoid = graph.producer(gate, "relax.sigmoid")
            if sigmoid is not None and sigmoid.args[0].same_as(data) and graph.only_use(gate):
                return data
        return None

    def rewrite(self, graph: Graph, found: Expr) -> Expr:
        return relax.op.nn.silu(found)


class _LeakyRelu(Rule[Call]):
    roots: ClassVar[tuple[str, ...]] = ("relax.nn.prelu",)

    def match(self, graph: Graph, value: Expr) -> Call | None:
        return value if scalar_of(value.args[1]) is not None else None

    def rewrite(self, graph: Graph, found: Call) -> Expr:
        return relax.op.nn.leakyrelu(found.args[0], scalar_of(found.args[1]))


class _LeakyMaximum(Rule[Call]):
    roots: ClassVar[tuple[str, ...]] = ("relax.maximum",)

    def match(self, graph: Graph, value: Expr) -> Call | None:
        for data, other in (value.args, list(value.args)[::-1]):
            scaled = graph.producer(other, "relax.multiply")
            slope = None if scaled is None or not scaled.args[0].same_as(data) else scalar_of(scaled.args[1])
            if slope is not None and 0 <= slope <= 1 and is_float(dtype_of(value)):
                return scaled
        return None

    def rewrite(self, graph: Graph, found: Call) -> Expr:
        return relax.op.nn.leakyrelu(found.args[0], scalar_of(found.args[1]))


@dataclass(frozen=True)
class _Slopes:
    data: Expr
    slopes: Array  # one a channel
    axis: int


class _Prelu(Rule[_Slopes]):
    roots: ClassVar[tuple[str, ...]] = ("relax.add", "relax.subtract")

    def match(self, graph: Graph, value: Expr) -> _Slopes | None:
        pairs = (value.args, list(value.args)[::-1]) if operator_name(value) == "relax.add" else (value.args,)
        for positive, negative in pairs:
            relu, scaled = graph.producer(positive, "relax.nn.relu"), graph.producer(negative, "relax.multiply")
            if relu is None or scaled is None or not same_type(relu, scaled):
                continue
            data, sign = relu.args[0], _sign_of_negative_part(graph, scaled.args[0], relu.args[0])
            found = _channels(scaled.args[1], shape_of(data) or ())
            if sign and found is not None:
                subtracted = operator_name(value) == "relax.subtract"
                return _Slopes(data, found[0] * (-sign if subtracted else sign), found[1])
        return None

    def rewrite(self, graph: Graph, found: _Slopes) -> Expr:
        return relax.op.nn.prelu(found.data, constant(found.slopes, dtype_of(found.data)), found.axis)


def _sign_of_negative_part(graph: Graph, expr: Expr, data: Expr) -> int:
    """1 where `expr` is `min(data, 0)`, -1 where it is `relu(-data)`, else 0."""
    call = graph.producer(expr, *_CLIPS)
    clip = None if call is None else _as_clip(call)
    if clip is None:
        return 0
    if clip.data.same_as(data) and (clip.low, clip.high) == (-np.inf, 0):
        return 1
    negated = graph.producer(clip.data, "relax.multiply")
    is_negated = negated is not None and negated.args[0].same_as(data) and scalar_of(negated.args[1]) == -1
    return -1 if is_negated and (clip.low, clip.high) == (0, np.inf) else 0


def _channels(expr: Expr, shape: tuple[int, ...]) -> tuple[Array, int] | None:
    """A constant as one value for each place of an axis, and that axis."""
    vectors = ((channel_vector(expr, shape, axis), axis) for axis in range(len(shape)))
    return next(((vector, axis) for vector, axis in vectors if vector is not None), None)


rebuild_activations = rewriting_pass(
    "rebuild_activations", lambda: [_Bounds(), _ClipOfClip(), _Silu(), _LeakyRelu(), _LeakyMaximum(), _Prelu()]
)
