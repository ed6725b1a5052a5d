"""Products and sums with scalar constants taken apart, however they are nested: what formulas are recognised by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm.ir import Call, Expr

from evo_tvm.passes._rewrite import Graph, operator_name
from evo_tvm.passes._values import same_type, scalar_of

#: Constants of a formula, written in a model with some six digits, agree with the formula's own to this.
RTOL = 1e-6


@dataclass(frozen=True)
class Product:
    """`scale` times every one of `factors`."""

    scale: float
    factors: tuple[Expr, ...]

    def without(self, factor: Expr) -> Product | None:
        """The rest of it when `factor` is taken out once; None where it is not among the factors."""
        for place, own in enumerate(self.factors):
            if own.same_as(factor):
                return Product(self.scale, self.factors[:place] + self.factors[place + 1 :])
        return None


def product(graph: Graph, expr: Expr | Call, depth: int = 4) -> Product:
    """`expr`, a variable or a call, as a product; it is its only factor where it is no multiplication.

    Goes through multiplications that nothing else reads and that do not broadcast their left operand.
    """
    call = expr if isinstance(expr, Call) else graph.producer(expr, "relax.multiply") if graph.only_use(expr) else None
    if call is None or operator_name(call) != "relax.multiply" or not depth or not same_type(call, call.args[0]):
        return Product(1.0, (expr,))
    left, scalar = product(graph, call.args[0], depth - 1), scalar_of(call.args[1])
    if scalar is not None:
        return Product(left.scale * float(scalar), left.factors)
    right = product(graph, call.args[1], depth - 1)
    return Product(left.scale * right.scale, left.factors + right.factors)


def shifted(graph: Graph, expr: Expr) -> tuple[Expr, float] | None:
    """x and c where `expr` = `x + c` with a scalar c and nothing else reads it."""
    call = graph.producer(expr, "relax.add")
    scalar = None if call is None or not same_type(call, call.args[0]) else scalar_of(call.args[1])
    return None if call is None or scalar is None or not graph.only_use(expr) else (call.args[0], float(scalar))


def near(value: float | int | bool | None, wanted: float) -> bool:
    """Whether a model's constant is the formula's."""
    return value is not None and bool(np.isclose(float(value), wanted, rtol=RTOL, atol=0))
