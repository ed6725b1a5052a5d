"""move_transposes: transposes travel until they cancel, and make convolutions of matrix products on the way."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from evo_tvm.passes.move_transposes import move_transposes
from tests.passes._check import Body, Emit, assert_leaves, assert_rewrites, calls, module, weights

SHAPE = (2, 3, 4, 5)
TO_NHWC, TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]


def there_and_back(body: Body) -> Body:
    """`to NCHW(body(to NHWC(x)))`."""
    return lambda emit, x: op.permute_dims(emit(body(emit, emit(op.permute_dims(x, TO_NHWC)))), TO_NCHW)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (lambda e, x: op.exp(x), ["exp"]),
        (lambda e, x: op.clip(x, 0, 1), ["clip"]),
        (lambda e, x: op.multiply(x, weights(3)), ["multiply"]),
        (lambda e, x: op.add(x, weights(4, 1, 3)), ["add"]),
        (lambda e, x: op.nn.pad(x, [0, 0, 1, 2, 3, 4, 0, 0]), ["nn.pad"]),
        (lambda e, x: op.matmul(e(op.nn.relu(x)), weights(3, 2)), ["nn.relu", "nn.conv2d"]),
        (lambda e, x: op.matmul(e(op.matmul(x, weights(3, 7))), weights(7, 3)), ["nn.conv2d", "nn.conv2d"]),
    ],
    ids=["unary", "clip", "a value a channel", "larger constant", "pad", "product", "wide inside"],
)
def test_pairs_meet(body: Body, expected: list[str]) -> None:
    assert_rewrites(move_transposes, module(there_and_back(body), SHAPE), expected)


def test_two_operands() -> None:
    def body(emit: Emit, x: relax.Var, y: relax.Var) -> relax.Expr:
        total = emit(op.subtract(emit(op.permute_dims(x, TO_NHWC)), emit(op.permute_dims(y, TO_NHWC))))
        return op.permute_dims(total, TO_NCHW)

    assert_rewrites(move_transposes, module(body, SHAPE, SHAPE), ["subtract"], rtol=0)


def test_concatenation() -> None:
    def body(emit: Emit, x: relax.Var, y: relax.Var) -> relax.Expr:
        both = emit(op.concat([emit(op.permute_dims(x, TO_NHWC)), emit(op.permute_dims(y, TO_NHWC))], -1))
        return op.permute_dims(both, TO_NCHW)

    after = assert_rewrites(move_transposes, module(body, SHAPE, SHAPE), ["concat"], rtol=0)
    assert int(calls(after, "concat")[0].attrs.axis) == 1


@pytest.mark.parametrize(
    ("keepdims", "axes", "expected"),
    [
        (False, [1, 2], ["mean"]),
        (True, [1, 2], ["mean", "permute_dims"]),
        (False, [2], ["mean", "permute_dims"]),
        (False, [-1], ["mean"]),
    ],
)
def test_reductions(keepdims: bool, axes: list[int], expected: list[str]) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.mean(emit(op.permute_dims(x, TO_NHWC)), axes, keepdims)

    assert_rewrites(move_transposes, module(body, SHAPE), expected)


def test_goes_up_to_what_stops_it() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        wide = emit(op.add(emit(op.matmul(emit(op.nn.softmax(x, -1)), weights(5, 9))), weights(9)))
        return op.permute_dims(
            emit(op.add(emit(op.matmul(emit(op.nn.relu(wide)), weights(9, 5))), weights(5))), TO_NCHW
        )

    expected = ["nn.softmax", "permute_dims", "nn.conv2d", "add", "nn.relu", "nn.conv2d", "add"]
    assert_rewrites(move_transposes, module(body, SHAPE), expected)


def test_sinks_past_a_product_that_does_not_widen() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.matmul(emit(op.permute_dims(x, TO_NHWC)), weights(3, 2))

    assert_rewrites(move_transposes, module(body, SHAPE), ["nn.conv2d", "permute_dims"])


def test_goes_down_together_with_reshapes() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        moved = emit(op.permute_dims(emit(op.reshape(x, (6, 2, 3))), [1, 0, 2]))
        return op.multiply(emit(op.exp(emit(op.reshape(moved, (1, 2, 6, 3))))), weights())

    expected = ["exp", "multiply", "reshape", "permute_dims", "reshape"]
    assert_rewrites(move_transposes, module(body, (6, 6)), expected)


def residual(emit: Emit, x: relax.Var) -> relax.Expr:
    return op.add(emit(op.permute_dims(x, [1, 0])), x)


def shared(emit: Emit, x: relax.Var) -> relax.Expr:
    moved = emit(op.permute_dims(x, [1, 0]))
    return relax.Tuple([moved, emit(op.exp(moved))])


def growing(emit: Emit, x: relax.Var) -> relax.Expr:
    return op.add(emit(op.permute_dims(x, [1, 0])), weights(2, 4, 4))


@pytest.mark.parametrize("body", [residual, shared, growing])
def test_leaves(body: Body) -> None:
    assert_leaves(move_transposes, module(body, (4, 4)))


def test_leaves_different_transposes() -> None:
    def body(emit: Emit, x: relax.Var, y: relax.Var) -> relax.Expr:
        return op.add(emit(op.permute_dims(x, [0, 1, 3, 2])), emit(op.permute_dims(y, [0, 3, 2, 1])))

    assert_leaves(move_transposes, module(body, (2, 4, 4, 4), (2, 4, 4, 4)))


@pytest.mark.parametrize(
    "body",
    [
        lambda e, x: op.matmul(e(op.permute_dims(x, TO_NHWC)), weights(3, 7)),
        lambda e, x: op.permute_dims(e(op.matmul(e(op.nn.softmax(x)), weights(5, 4))), TO_NCHW),
        lambda e, x: op.matmul(e(op.permute_dims(x, [0, 1, 3, 2])), weights(4, 3)),
    ],
    ids=["wider below", "wider above", "not the channels"],
)
def test_leaves_products(body: Body) -> None:
    assert_leaves(move_transposes, module(body, SHAPE))


def test_leaves_double_precision() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.matmul(emit(op.permute_dims(x, TO_NHWC)), relax.const(np.ones((3, 3)), "float64"))

    assert_leaves(move_transposes, module(body, (SHAPE, "float64")))
