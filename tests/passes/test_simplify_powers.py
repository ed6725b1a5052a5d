"""simplify_powers: small powers become products and roots."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from evo_tvm.passes.simplify_powers import simplify_powers
from tests.passes._check import Body, Emit, assert_leaves, assert_rewrites, module


@pytest.mark.parametrize(
    ("exponent", "expected"),
    [(2, ["multiply"]), (3, ["multiply"] * 2), (4, ["multiply"] * 2), (0.5, ["sqrt"]), (-0.5, ["rsqrt"])],
)
def test_simplifies(exponent: float, expected: list[str]) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.power(emit(op.exp(x)), relax.const(np.float32(exponent)))

    assert_rewrites(simplify_powers, module(body, (3, 5)), ["exp", *expected])


def test_an_exponent_in_every_place() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.power(x, relax.const(np.full((1, 5), 2, "float32")))

    assert_rewrites(simplify_powers, module(body, (3, 5)), ["multiply"], rtol=0)  # of negative numbers, too


def test_leaves_other_exponents() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.power(x, relax.const(np.float32(1.7)))

    assert_leaves(simplify_powers, module(body, (5,)), "1.7 is no exponent that has a short form")


@pytest.mark.parametrize(
    ("body", "dtype"),
    [
        (lambda emit, x: op.power(x, relax.const(np.array([2, 3], "float32"))), "float32"),
        (lambda emit, x: op.power(x, relax.const(np.full((3, 1), 2, "float32"))), "float32"),
        (lambda emit, x: op.power(x, x), "float32"),
        (lambda emit, x: op.power(x, relax.const(2, "int32")), "int32"),
    ],
    ids=["exponents that differ", "broadcast", "variable", "integers"],
)
def test_leaves(body: Body, dtype: str) -> None:
    assert_leaves(simplify_powers, module(body, ((1, 2), dtype)))
