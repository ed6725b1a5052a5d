"""replace_mean_with_global_pool: means and average pools over whole images."""

from __future__ import annotations

import pytest
from tvm import relax
from tvm.relax import op

from evo_tvm.passes.replace_mean_with_global_pool import replace_mean_with_global_pool
from tests.passes._check import Body, Emit, assert_leaves, assert_rewrites, module

SHAPE = (2, 3, 5, 4)
POOL = "nn.adaptive_avg_pool2d"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (lambda emit, x: op.mean(x, [2, 3], True), [POOL]),
        (lambda emit, x: op.mean(x, [-1, -2], True), [POOL]),
        (lambda emit, x: op.mean(x, [2, 3]), [POOL, "reshape"]),
        (lambda emit, x: op.mean(emit(op.mean(x, [3], True)), [2], True), [POOL]),
        (lambda emit, x: op.nn.avg_pool2d(x, (5, 4)), [POOL]),
        (lambda emit, x: op.nn.avg_pool2d(x, (5, 4), strides=3), [POOL]),
    ],
    ids=["kept", "from the back", "dropped", "one after the other", "pool", "strided pool"],
)
def test_replaces(body: Body, expected: list[str]) -> None:
    assert_rewrites(replace_mean_with_global_pool, module(body, SHAPE), expected)


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        (lambda emit, x: op.mean(x, [1], True), SHAPE),
        (lambda emit, x: op.mean(x), SHAPE),
        (lambda emit, x: op.mean(x, [2], True), (2, 3, 4)),
        (lambda emit, x: op.sum(x, [2, 3], True), SHAPE),
        (lambda emit, x: op.nn.avg_pool2d(x, 3), SHAPE),
        (lambda emit, x: op.nn.avg_pool2d(x, (5, 4), padding=1), SHAPE),
        (lambda emit, x: op.nn.max_pool2d(x, (5, 4)), SHAPE),
    ],
    ids=["channels", "everything", "three axes", "sum", "small pool", "padded pool", "max pool"],
)
def test_leaves(body: Body, shape: tuple[int, ...]) -> None:
    assert_leaves(replace_mean_with_global_pool, module(body, shape))


def test_leaves_integers() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.mean(x, [2, 3], True)

    assert_leaves(replace_mean_with_global_pool, module(body, (SHAPE, "int32")))
