"""exp(x - max(x)) / sum(exp(x - max(x))) => softmax(x); the same without the maximum, or times the reciprocal sum.

Without the maximum the model itself overflows from x = 88 on; softmax gives there what it should have given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tvm import relax
from tvm.ir import Call, Expr

from evo_tvm.passes._rewrite import Graph, Rule, operator_name, rewriting_pass
from evo_tvm.passes._values import scalar_of, shape_of


@dataclass(frozen=True)
class _Softmax:
    data: Expr
    axis: int


class _Rebuild(Rule[_Softmax]):
    roots: ClassVar[tuple[str, ...]] = ("relax.divide", "relax.multiply")

    def match(self, graph: Graph, value: Expr) -> _Softmax | None:
        for exponential, other in (value.args, list(value.args)[::-1]):
            found = _softmax(graph, exponential, _divisor(graph, value, other))
            if found is not None:
                return found
            if operator_name(value) == "relax.divide":
                break
        return None

    def rewrite(self, graph: Graph, found: _Softmax) -> Expr:
        return relax.op.nn.softmax(found.data, found.axis)


def _divisor(graph: Graph, root: Call, other: Expr) -> Expr | None:
    """What the root divides by, itself or as a product with `1 / divisor`."""
    if operator_name(root) == "relax.divide":
        return other
    quotient = graph.producer(other, "relax.divide")
    return quotient.args[1] if quotient is not None and scalar_of(quotient.args[0]) == 1 else None


def _softmax(graph: Graph, exponential: Expr, divisor: Expr | None) -> _Softmax | None:
    exp = graph.producer(exponential, "relax.exp")
    total = None if divisor is None else graph.producer(divisor, "relax.sum")
    if exp is None or total is None or not total.args[0].same_as(exponential) or shape_of(exponential) is None:
        return None
    axis = _kept_axis(total)
    if axis is None:
        return None
    difference = graph.producer(exp.args[0], "relax.subtract")
    largest = None if difference is None else graph.producer(difference.args[1], "relax.max")
    if difference is not None and largest is not None:
        if largest.args[0].same_as(difference.args[0]) and _kept_axis(largest) == axis:
            return _Softmax(difference.args[0], axis)
    return _Softmax(exp.args[0], axis)


def _kept_axis(call: Call) -> int | None:
    """The one axis that a reduction leaves with size one."""
    if not call.attrs.keepdims or call.attrs.axis is None or len(call.attrs.axis) != 1:
        return None
    return int(call.attrs.axis[0]) % int(call.args[0].ty.ndim)


rebuild_softmax = rewriting_pass("rebuild_softmax", lambda: [_Rebuild()])
