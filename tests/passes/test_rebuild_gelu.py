"""rebuild_gelu: both forms of GELU, however they are written."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from evo_tvm.passes.rebuild_gelu import rebuild_gelu
from tests.passes._check import Body, Emit, assert_leaves, assert_rewrites, module

SHAPE = (3, 7)


def f(value: float) -> relax.Expr:
    return relax.const(np.float32(value))


def erf_gate(emit: Emit, x: relax.Expr, scale: float = 0.5**0.5) -> relax.Var:
    return emit(op.add(emit(op.erf(emit(op.multiply(x, f(scale))))), f(1)))


def tanh_gate(emit: Emit, x: relax.Expr, cubic: float = 0.044715, cube_first: bool = False) -> relax.Var:
    cube = emit(op.multiply(emit(op.multiply(emit(op.multiply(x, x)), x)), f(cubic)))
    total = emit(op.add(cube, x) if cube_first else op.add(x, cube))
    return emit(op.add(emit(op.tanh(emit(op.multiply(total, f((2 / np.pi) ** 0.5))))), f(1)))


def factored_tanh_gate(emit: Emit, x: relax.Expr) -> relax.Var:
    bracket = emit(op.add(emit(op.multiply(emit(op.multiply(x, x)), f(0.044715))), f(1)))
    argument = emit(op.multiply(emit(op.multiply(x, f(0.7978845608028654))), bracket))
    return emit(op.add(emit(op.tanh(argument)), f(1)))


def halved_sum(emit: Emit, x: relax.Expr) -> relax.Expr:
    half = emit(op.multiply(emit(op.erf(emit(op.multiply(x, f(0.70710677))))), f(0.5)))
    return op.multiply(x, emit(op.add(half, f(0.5))))


ERF: dict[str, Body] = {
    "half last": lambda e, x: op.multiply(e(op.multiply(x, erf_gate(e, x))), f(0.5)),
    "half first": lambda e, x: op.multiply(e(op.multiply(x, f(0.5))), erf_gate(e, x)),
    "half on the gate": lambda e, x: op.multiply(e(op.multiply(erf_gate(e, x), f(0.5))), x),
    "half in the sum": halved_sum,
}
TANH: dict[str, Body] = {
    "half last": lambda e, x: op.multiply(e(op.multiply(x, tanh_gate(e, x))), f(0.5)),
    "half first": lambda e, x: op.multiply(e(op.multiply(x, f(0.5))), tanh_gate(e, x, cube_first=True)),
    "factored": lambda e, x: op.multiply(e(op.multiply(x, f(0.5))), factored_tanh_gate(e, x)),
}


@pytest.mark.parametrize("name", ERF)
def test_error_function(name: str) -> None:
    assert_rewrites(rebuild_gelu, module(ERF[name], SHAPE), ["nn.gelu"])


@pytest.mark.parametrize("name", TANH)
def test_hyperbolic_tangent(name: str) -> None:
    assert_rewrites(rebuild_gelu, module(TANH[name], SHAPE), ["nn.gelu_tanh"])


@pytest.mark.parametrize(
    "body",
    [
        lambda e, x: op.multiply(x, erf_gate(e, x)),
        lambda e, x: op.multiply(e(op.multiply(x, erf_gate(e, x, 0.7))), f(0.5)),
        lambda e, x: op.multiply(e(op.multiply(x, erf_gate(e, e(op.exp(x))))), f(0.5)),
        lambda e, x: op.multiply(e(op.multiply(x, tanh_gate(e, x, 0.045))), f(0.5)),
        lambda e, x: op.multiply(e(op.multiply(x, e(op.sigmoid(x)))), f(0.5)),
    ],
    ids=["twice as much", "another argument", "of another value", "another cubic", "sigmoid"],
)
def test_leaves(body: Body) -> None:
    assert_leaves(rebuild_gelu, module(body, SHAPE))


def test_leaves_a_gate_that_others_use() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        gate = erf_gate(emit, x)
        return op.add(emit(op.multiply(emit(op.multiply(x, gate)), f(0.5))), gate)

    assert_leaves(rebuild_gelu, module(body, SHAPE))
