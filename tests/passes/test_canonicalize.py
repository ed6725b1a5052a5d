"""canonicalize: one way of writing sums, products and reshapes."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from evo_tvm.passes.canonicalize import canonicalize
from tests.passes._check import Body, Emit, assert_leaves, assert_rewrites, calls, module, weights


@pytest.mark.parametrize("name", ["add", "multiply", "maximum", "minimum"])
def test_constants_to_the_right(name: str) -> None:
    after = assert_rewrites(
        canonicalize, module(lambda emit, x: getattr(op, name)(weights(4), x), (2, 4)), [name], rtol=0
    )
    assert isinstance(calls(after, name)[0].args[0], relax.Var)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (lambda emit, x: op.subtract(x, weights(4)), ["add"]),
        (lambda emit, x: op.subtract(weights(4), x), ["multiply", "add"]),
        (lambda emit, x: op.negative(x), ["multiply"]),
        (lambda emit, x: op.divide(x, relax.const(4.0)), ["multiply"]),
    ],
    ids=["x - c", "c - x", "-x", "x / 4"],
)
def test_only_sums_and_products(body: Body, expected: list[str]) -> None:
    assert_rewrites(canonicalize, module(body, (2, 4)), expected, rtol=0)


def test_a_quotient_is_off_by_one_unit_in_the_last_place() -> None:
    divide = module(lambda emit, x: op.divide(x, relax.const(6.0)), (64,))
    assert_rewrites(canonicalize, divide, ["multiply"], rtol=float(np.finfo("float32").eps))


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        (lambda emit, x: op.squeeze(x, [0]), (1, 4)),
        (lambda emit, x: op.expand_dims(x, [0, 2]), (1, 4)),
        (lambda emit, x: op.flatten(x), (2, 4)),
        (lambda emit, x: op.nn.batch_flatten(x), (2, 4, 3)),
    ],
    ids=["squeeze", "expand_dims", "flatten", "batch_flatten"],
)
def test_only_reshape(body: Body, shape: tuple[int, ...]) -> None:
    assert_rewrites(canonicalize, module(body, shape), ["reshape"], rtol=0)


@pytest.mark.parametrize("swapped", [False, True])
def test_scalars_come_last(swapped: bool) -> None:
    def body(emit: Emit, x: relax.Var, y: relax.Var) -> relax.Expr:
        scaled = emit(op.multiply(x, relax.const(np.float32(0.3))))
        return op.multiply(scaled, y) if swapped else op.multiply(y, scaled)

    after = assert_rewrites(canonicalize, module(body, (2, 4), (2, 4)), ["multiply", "multiply"])
    assert [int(dim) for dim in calls(after, "multiply")[1].args[1].ty.shape] == []


def test_leaves_scaled_values_that_others_use() -> None:
    def body(emit: Emit, x: relax.Var, y: relax.Var) -> relax.Expr:
        scaled = emit(op.multiply(x, relax.const(np.float32(0.3))))
        return op.add(emit(op.multiply(y, scaled)), scaled)

    assert_leaves(canonicalize, module(body, (2, 4), (2, 4)))


@pytest.mark.parametrize("divisor", [0.0, 1e39, 3e38], ids=["zero", "infinite", "denormal reciprocal"])
def test_leaves_divisors_without_a_reciprocal(divisor: float) -> None:
    with np.errstate(over="ignore"):
        constant = relax.const(np.float32(divisor))
    quotient = module(lambda emit, x: op.divide(x, constant), (4,))
    assert_leaves(canonicalize, quotient, "the reciprocal of the divisor is not a normal number")


@pytest.mark.parametrize(
    "body",
    [
        lambda emit, x: op.divide(x, relax.const(3, "int32")),
        lambda emit, x: op.subtract(x, relax.const(3, "int32")),
        lambda emit, x: op.subtract(x, x),
    ],
    ids=["x / 3", "x - 3", "x - x"],
)
def test_leaves_integers(body: Body) -> None:
    assert_leaves(canonicalize, module(body, ((4,), "int32")))


def test_leaves_what_is_in_order() -> None:
    def body(emit: Emit, x: relax.Var, y: relax.Var) -> relax.Expr:
        return op.divide(emit(op.add(emit(op.multiply(x, weights(4))), y)), y)

    assert_leaves(canonicalize, module(body, (2, 4), (2, 4)))
