"""eliminate_common_subexpressions: equal operators on equal operands are computed once."""

from __future__ import annotations

import time

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from evo_tvm.passes.eliminate_common_subexpressions import eliminate_common_subexpressions
from tests.passes._check import Emit, assert_leaves, assert_rewrites, module, weights

rewrite = eliminate_common_subexpressions


def test_equal_calls() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.add(emit(op.exp(x)), emit(op.exp(x)))

    assert_rewrites(rewrite, module(body, (4,)), ["exp", "add"], rtol=0)


def test_chains_of_equal_calls() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        first = emit(op.nn.max_pool2d(emit(op.exp(x)), 2))
        second = emit(op.nn.max_pool2d(emit(op.exp(x)), 2))
        return op.concat([first, second], 1)

    assert_rewrites(rewrite, module(body, (1, 2, 4, 4)), ["exp", "nn.max_pool2d", "concat"], rtol=0)


@pytest.mark.parametrize("size", [3, 100_000], ids=["small", "large"])
def test_constants_of_equal_value(size: int) -> None:
    values = np.arange(size, dtype="float32")

    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.multiply(emit(op.add(x, relax.const(values))), emit(op.add(x, relax.const(values.copy()))))

    assert_rewrites(rewrite, module(body, (size,)), ["add", "multiply"], rtol=0)


def test_scalars_of_equal_value() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.multiply(emit(op.add(x, relax.const(2.0))), emit(op.add(x, relax.const(2.0))))

    assert_rewrites(rewrite, module(body, (4,)), ["add", "multiply"], rtol=0)


def test_items_of_tuples() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.add(emit(emit(op.split(x, 2))[1]), emit(emit(op.split(x, 2))[1]))

    assert_rewrites(rewrite, module(body, (4,)), ["split", "TupleGetItem", "add"], rtol=0)


def test_two_outputs_of_one_value() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return relax.Tuple([emit(op.exp(x)), emit(op.exp(x))])

    assert_rewrites(rewrite, module(body, (4,)), ["exp", "Tuple"], rtol=0)


def test_leaves_attributes_that_differ() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.add(emit(op.nn.softmax(x, 0)), emit(op.nn.softmax(x, 1)))

    assert_leaves(rewrite, module(body, (4, 4)))


def test_leaves_operands_in_another_order() -> None:
    def body(emit: Emit, x: relax.Var, y: relax.Var) -> relax.Expr:
        return op.add(emit(op.subtract(x, y)), emit(op.subtract(y, x)))

    assert_leaves(rewrite, module(body, (4,), (4,)))


def test_leaves_large_constants_that_differ_between_the_samples() -> None:
    values = np.zeros(100_000, "float32")
    other = values.copy()
    other[1] = 1

    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.multiply(emit(op.add(x, relax.const(values))), emit(op.add(x, relax.const(other))))

    assert_leaves(rewrite, module(body, (100_000,)))


def test_leaves_constants_of_another_shape_or_dtype() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        a, b = relax.const(np.zeros((1, 4), "float32")), relax.const(np.zeros(4, "float32"))
        return op.subtract(emit(op.add(x, a)), emit(op.add(x, b)))

    assert_leaves(rewrite, module(body, (1, 4)))


def test_large_constants_are_cheap() -> None:
    """Different weights of 64 MB in all take a fraction of the time of reading them."""

    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        for _ in range(16):
            x = emit(op.add(x, weights(1 << 20)))
        return x

    before = module(body, (1 << 20,))
    start = time.process_time()
    rewrite(before)
    assert time.process_time() - start < 0.05
