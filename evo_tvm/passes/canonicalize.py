"""c + x => x + c; x - c => x + (-c); x / c => x * (1 / c); x * (y * c) => x * y * c; squeeze(x) => reshape(x, shape).

One way of writing what the other passes look for: constants on the right of `add` and `multiply`, no division by or
subtraction of floating constants, scalar factors last, and `reshape` for everything that only changes a shape. A
quotient by a constant changes by at most one unit in the last place, and not at all where the constant is a power of
two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from tvm import relax
from tvm.ir import Call, Expr

from evo_tvm.passes._rewrite import Graph, Rule, operator_name, retyped, rewriting_pass
from evo_tvm.passes._values import (
    array_of,
    constant,
    dtype_of,
    is_constant,
    is_float,
    same_type,
    scalar_of,
    shape_of,
    values_of,
)

_COMMUTATIVE = ("relax.add", "relax.multiply", "relax.maximum", "relax.minimum")
_RESHAPES = ("relax.squeeze", "relax.expand_dims", "relax.flatten", "relax.nn.batch_flatten")


class _ConstantsRight(Rule[Call]):
    roots: ClassVar[tuple[str, ...]] = _COMMUTATIVE

    def match(self, graph: Graph, value: Expr) -> Call | None:
        left, right = value.args
        return value if is_constant(left) and not is_constant(right) else None

    def rewrite(self, graph: Graph, found: Call) -> Expr:
        left, right = found.args
        return retyped(found, [right, left])


class _NoSubtraction(Rule[Call]):
    """`x - c`, `c - x` and `-x`; the middle one as `x * -1 + c`."""

    roots: ClassVar[tuple[str, ...]] = ("relax.subtract", "relax.negative")

    def match(self, graph: Graph, value: Expr) -> Call | None:
        constants = [is_constant(arg) for arg in value.args]
        if not is_float(dtype_of(value)) or all(constants):
            return None
        return value if operator_name(value) == "relax.negative" or any(constants) else None

    def rewrite(self, graph: Graph, found: Call) -> Expr:
        dtype = dtype_of(found)
        subtrahend = array_of(found.args[-1])
        if subtrahend is not None:
            return relax.op.add(found.args[0], constant(-subtrahend, dtype))
        negative = relax.op.multiply(found.args[-1], constant(-1, dtype))
        if operator_name(found) == "relax.negative":
            return negative
        return relax.op.add(graph.emit(negative), found.args[0])


class _NoDivision(Rule[Call]):
    roots: ClassVar[tuple[str, ...]] = ("relax.divide",)

    def match(self, graph: Graph, value: Expr) -> Call | None:
        divisible = is_float(dtype_of(value)) and not is_constant(value.args[0])
        return value if divisible and is_constant(value.args[1]) else None

    def check(self, graph: Graph, found: Call) -> str | None:
        with np.errstate(all="ignore"):
            reciprocal = 1 / values_of(found.args[1])
        normal = np.isfinite(reciprocal) & (np.abs(reciprocal) >= np.finfo(reciprocal.dtype).tiny)
        return None if normal.all() else "the reciprocal of the divisor is not a normal number"

    def rewrite(self, graph: Graph, found: Call) -> Expr:
        return relax.op.multiply(found.args[0], constant(1 / values_of(found.args[1]), dtype_of(found)))


@dataclass(frozen=True)
class _Nested:
    call: Call
    data: Expr
    inner: Call  # y * c


class _ScalarsLast(Rule[_Nested]):
    """`x * (y * c)` as `(x * y) * c`: the weight of the layer that follows can take c."""

    roots: ClassVar[tuple[str, ...]] = ("relax.multiply",)

    def match(self, graph: Graph, value: Expr) -> _Nested | None:
        if not is_float(dtype_of(value)) or is_constant(value.args[1]) or not same_type(*value.args):
            return None
        for data, other in (value.args, list(value.args)[::-1]):
            inner = graph.producer(other, "relax.multiply") if graph.only_use(other) else None
            if inner is not None and same_type(inner, inner.args[0]) and scalar_of(inner.args[1]) is not None:
                return _Nested(value, data, inner)
        return None

    def rewrite(self, graph: Graph, found: _Nested) -> Expr:
        product = graph.emit(retyped(found.call, [found.data, found.inner.args[0]]), graph.root_name)
        return retyped(found.call, [product, found.inner.args[1]])


class _OnlyReshape(Rule[Call]):
    roots: ClassVar[tuple[str, ...]] = _RESHAPES

    def match(self, graph: Graph, value: Expr) -> Call | None:
        return value if shape_of(value) is not None else None

    def rewrite(self, graph: Graph, found: Call) -> Expr:
        return relax.op.reshape(found.args[0], shape_of(found))


canonicalize = rewriting_pass(
    "canonicalize", lambda: [_ConstantsRight(), _NoSubtraction(), _NoDivision(), _ScalarsLast(), _OnlyReshape()]
)
