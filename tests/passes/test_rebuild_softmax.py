"""rebuild_softmax: exponentials over their sum."""

from __future__ import annotations

import pytest
from tvm import relax
from tvm.relax import op

from evo_tvm.passes.rebuild_softmax import rebuild_softmax
from tests.passes._check import Body, Emit, assert_leaves, assert_rewrites, calls, module

SHAPE = (2, 3, 5)


def stable(axis: int, reciprocal: bool = False) -> Body:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return over_sum(emit, emit(op.subtract(x, emit(op.max(x, [axis], True)))), axis, reciprocal)

    return body


def over_sum(emit: Emit, x: relax.Expr, axis: int, reciprocal: bool = False) -> relax.Expr:
    exponential = emit(op.exp(x))
    total = emit(op.sum(exponential, [axis], True))
    return (
        op.multiply(exponential, emit(op.divide(relax.const(1.0), total)))
        if reciprocal
        else op.divide(exponential, total)
    )


@pytest.mark.parametrize(
    ("body", "axis"),
    [
        (stable(2), 2),
        (stable(-2), 1),
        (stable(2, reciprocal=True), 2),
        (lambda emit, x: over_sum(emit, x, 2), 2),
    ],
    ids=["last axis", "another axis", "reciprocal", "without the maximum"],
)
def test_rebuilds(body: Body, axis: int) -> None:
    after = assert_rewrites(rebuild_softmax, module(body, SHAPE), ["nn.softmax"])
    assert int(calls(after, "nn.softmax")[0].attrs.axis) == axis


def test_a_maximum_over_more_than_the_axis_stays() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return over_sum(emit, emit(op.subtract(x, emit(op.max(x, [1, 2], True)))), 2)

    assert_rewrites(rebuild_softmax, module(body, SHAPE), ["max", "subtract", "nn.softmax"])


def sum_of_another(emit: Emit, x: relax.Var) -> relax.Expr:
    return op.divide(emit(op.exp(x)), emit(op.sum(emit(op.abs(x)), [2], True)))


def two_axes(emit: Emit, x: relax.Var) -> relax.Expr:
    exponential = emit(op.exp(x))
    return op.divide(exponential, emit(op.sum(exponential, [1, 2], True)))


def dropped_axis(emit: Emit, x: relax.Var) -> relax.Expr:
    exponential = emit(op.exp(x))
    return op.divide(exponential, emit(op.expand_dims(emit(op.sum(exponential, [2])), 2)))


def upside_down(emit: Emit, x: relax.Var) -> relax.Expr:
    exponential = emit(op.exp(x))
    return op.divide(emit(op.sum(exponential, [2], True)), exponential)


@pytest.mark.parametrize("body", [sum_of_another, two_axes, dropped_axis, upside_down])
def test_leaves(body: Body) -> None:
    assert_leaves(rebuild_softmax, module(body, SHAPE))
