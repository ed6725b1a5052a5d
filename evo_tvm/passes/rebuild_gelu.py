"""x * (1 + erf(x / sqrt(2))) * 0.5 => gelu(x); x * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) * 0.5 => gelu_tanh(x).

Whatever the order of the factors, and with the half inside the sum or outside (Hendrycks and Gimpel, "Gaussian Error
Linear Units", 2016, both forms). Powers are for `simplify_powers` to write as products first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from tvm import relax
from tvm.ir import Expr

from evo_tvm.passes._elementwise import single
from evo_tvm.passes._products import Product, near, product, shifted
from evo_tvm.passes._rewrite import Graph, Rule, rewriting_pass

_CUBIC = 0.044715


@dataclass(frozen=True)
class _Gelu:
    data: Expr
    tanh: bool


class _Rebuild(Rule[_Gelu]):
    roots: ClassVar[tuple[str, ...]] = ("relax.multiply",)

    def match(self, graph: Graph, value: Expr) -> _Gelu | None:
        whole = product(graph, value)
        if len(whole.factors) != 2:
            return None
        for data, gate in (whole.factors, whole.factors[::-1]):
            for tanh in (False, True):
                argument = _argument(graph, gate, "relax.tanh" if tanh else "relax.erf", whole.scale)
                if argument is not None and (_is_cubic if tanh else _is_scaled)(graph, argument, data):
                    return _Gelu(data, tanh)
        return None

    def rewrite(self, graph: Graph, found: _Gelu) -> Expr:
        return (relax.op.nn.gelu_tanh if found.tanh else relax.op.nn.gelu)(found.data)


def _argument(graph: Graph, expr: Expr, operator: str, scale: float) -> Expr | None:
    """u where `scale` times `expr` is `0.5 * (1 + operator(u))`."""
    parts = shifted(graph, expr)
    if parts is None or not near(scale * parts[1], 0.5):
        return None
    inner = product(graph, parts[0])
    if len(inner.factors) != 1 or not near(scale * inner.scale, 0.5):
        return None
    call = single(graph, inner.factors[0], operator)
    return None if call is None else call.args[0]


def _is_scaled(graph: Graph, expr: Expr, data: Expr) -> bool:
    """`data / sqrt(2)`."""
    return _is_multiple(product(graph, expr), data, math.sqrt(0.5))


def _is_cubic(graph: Graph, expr: Expr, data: Expr) -> bool:
    """`sqrt(2/pi) * (data + 0.044715 * data^3)`, or with `data` before the bracket."""
    outer = product(graph, expr)
    if not near(outer.scale, math.sqrt(2 / math.pi)):
        return False
    rest = outer.without(data)
    if rest is not None and len(rest.factors) == 1:
        inner = shifted(graph, rest.factors[0])
        return inner is not None and near(inner[1], 1) and _is_power(product(graph, inner[0]), data, 2)
    call = graph.producer(outer.factors[0], "relax.add") if len(outer.factors) == 1 else None
    if call is None or not graph.only_use(outer.factors[0]):
        return False
    pairs = (call.args, list(call.args)[::-1])
    return any(first.same_as(data) and _is_power(product(graph, second), data, 3) for first, second in pairs)


def _is_power(found: Product, data: Expr, exponent: int) -> bool:
    """`0.044715 * data ** exponent`."""
    alike = len(found.factors) == exponent and all(factor.same_as(data) for factor in found.factors)
    return alike and near(found.scale, _CUBIC)


def _is_multiple(found: Product, data: Expr, scale: float) -> bool:
    return len(found.factors) == 1 and found.factors[0].same_as(data) and near(found.scale, scale)


rebuild_gelu = rewriting_pass("rebuild_gelu", lambda: [_Rebuild()])
