"""move_reshapes: elementwise operators come before reshapes."""

from __future__ import annotations

import pytest
from tvm import relax
from tvm.relax import op

from evo_tvm.passes.move_reshapes import move_reshapes
from tests.passes._check import Body, Emit, assert_leaves, assert_rewrites, module, weights

SHAPE, RESHAPED = (2, 3, 4, 5), (2, 12, 5)
REASON = "the constant differs along an axis that the reshape changes"


def after_reshape(body: Body, shape: tuple[int, ...] = RESHAPED) -> Body:
    return lambda emit, x: op.tanh(emit(body(emit, emit(op.reshape(x, shape)))))


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (lambda e, x: op.exp(x), "exp"),
        (lambda e, x: op.clip(x, 0, 1), "clip"),
        (lambda e, x: op.add(x, weights()), "add"),
        (lambda e, x: op.add(x, weights(5)), "add"),
        (lambda e, x: op.add(x, weights(2, 1, 5)), "add"),
        (lambda e, x: op.multiply(x, weights(2, 12, 5)), "multiply"),
    ],
    ids=["unary", "clip", "scalar", "a value a column", "two axes that stay", "every element"],
)
def test_moves(body: Body, name: str) -> None:
    assert_rewrites(move_reshapes, module(after_reshape(body), SHAPE), [name, "tanh", "reshape"], rtol=1e-6)


def test_a_dropped_axis_of_size_one() -> None:
    body = after_reshape(lambda e, x: op.add(x, weights(3, 5)), (3, 5))
    assert_rewrites(move_reshapes, module(body, (1, 3, 1, 5)), ["add", "tanh", "reshape"], rtol=0)


def test_softmax_of_rows() -> None:
    body = after_reshape(lambda e, x: op.nn.softmax(x, -1), (24, 5))
    assert_rewrites(move_reshapes, module(body, SHAPE), ["nn.softmax", "tanh", "reshape"])


def test_two_reshapes() -> None:
    def body(emit: Emit, x: relax.Var, y: relax.Var) -> relax.Expr:
        return op.subtract(emit(op.reshape(x, RESHAPED)), emit(op.reshape(y, RESHAPED)))

    assert_rewrites(move_reshapes, module(body, SHAPE, SHAPE), ["subtract", "reshape"], rtol=0)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_residual_behind_a_product(swapped: bool) -> None:
    def body(emit: Emit, x: relax.Var, y: relax.Var) -> relax.Expr:
        product = emit(op.reshape(emit(op.add(emit(op.matmul(x, weights(4, 5))), weights(5))), (2, 3, 5)))
        return op.subtract(y, product) if swapped else op.subtract(product, y)

    expected = ["matmul", "add", "reshape", "subtract", "reshape"]
    assert_rewrites(move_reshapes, module(body, (6, 4), (2, 3, 5)), expected)


@pytest.mark.parametrize("constant", [(12, 5), (2, 12, 1)])
def test_leaves_a_constant_along_what_changes(constant: tuple[int, ...]) -> None:
    assert_leaves(move_reshapes, module(after_reshape(lambda e, x: op.add(x, weights(*constant))), SHAPE), REASON)


def residual(emit: Emit, x: relax.Var) -> relax.Expr:
    return op.add(emit(op.reshape(x, (4, 4))), emit(op.exp(emit(op.permute_dims(emit(op.reshape(x, (4, 4))))))))


def shared(emit: Emit, x: relax.Var) -> relax.Expr:
    flat = emit(op.reshape(x, (16,)))
    return relax.Tuple([flat, emit(op.exp(flat))])


def normalized(emit: Emit, x: relax.Var) -> relax.Expr:
    return op.nn.softmax(emit(op.reshape(x, (16,))))


def softmax_of_columns(emit: Emit, x: relax.Var) -> relax.Expr:
    return op.nn.softmax(emit(op.reshape(x, (1, 2, 8))), 1)


def growing(emit: Emit, x: relax.Var) -> relax.Expr:
    return op.add(emit(op.reshape(x, (1, 16))), weights(3, 1))


@pytest.mark.parametrize("body", [residual, shared, normalized, softmax_of_columns, growing])
def test_leaves(body: Body) -> None:
    assert_leaves(move_reshapes, module(body, (2, 8)))
