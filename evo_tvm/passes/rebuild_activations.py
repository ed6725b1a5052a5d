"""minimum(maximum(x, 0), 6) => clip(x, 0, 6); maximum(x, 0) => relu(x); x * sigmoid(x) => silu(x).

Also two clips in a row (a ReLU is one) as one, and PReLU with one slope for all channels as LeakyReLU. Hard-sigmoid and
hard-swish stay a clip between additions and multiplications, which a kernel's epilogue takes as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm import relax, tirx
from tvm.ir import Call, Expr

from evo_tvm.passes._rewrite import Graph, Rule, operator_name, rewriting_pass
from evo_tvm.passes._values import dtype_of, is_float, same_type, scalar_of

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


rebuild_activations = rewriting_pass("rebuild_activations", lambda: [_Bounds(), _ClipOfClip(), _Silu(), _LeakyRelu()])
