"""fold_bias: sums of constants, and one form for what is left."""

from __future__ import annotations

from typing import Any

import pytest
from tvm import relax
from tvm.relax.op import add, matmul, nn

from evo_tvm.passes.fold_bias import fold_bias
from tests.passes._check import Emit, assert_leaves, assert_rewrites, calls, module, weights


def bias_shape(mod: Any) -> list[int]:
    return [int(dim) for dim in calls(mod, "add")[0].args[1].ty.shape]


def test_two_biases_of_a_convolution() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return add(emit(add(emit(nn.conv2d(x, weights(6, 4, 1, 1))), weights(1, 6, 1, 1))), weights(1, 6, 1, 1))

    assert_rewrites(fold_bias, module(body, (1, 4, 3, 3)), ["nn.conv2d", "add"])


@pytest.mark.parametrize("shape", [(), (1,), (6, 1, 1), (1, 1, 1, 1)], ids=str)
def test_one_form_for_convolutions(shape: tuple[int, ...]) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return add(emit(nn.conv2d(x, weights(6, 4, 1, 1))), weights(*shape))

    after = assert_rewrites(fold_bias, module(body, (1, 4, 3, 3)), ["nn.conv2d", "add"], rtol=0)
    assert bias_shape(after) == [1, 6, 1, 1]


@pytest.mark.parametrize("shape", [(), (1, 6), (1, 1)], ids=str)
def test_one_form_for_matrix_products(shape: tuple[int, ...]) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return add(emit(matmul(x, weights(4, 6))), weights(*shape))

    after = assert_rewrites(fold_bias, module(body, (2, 4)), ["matmul", "add"], rtol=0)
    assert bias_shape(after) == [6]


def test_sums_elsewhere() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return add(emit(add(emit(add(x, weights(1))), weights(4))), weights(4))

    assert_rewrites(fold_bias, module(body, (2, 4)), ["add"])


def test_integers_exactly() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return add(emit(add(x, relax.const(7, "int32"))), relax.const(-3, "int32"))

    assert_rewrites(fold_bias, module(body, ((4,), "int32")), ["add"], rtol=0)


def test_leaves_a_shared_sum() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        first = emit(add(x, weights(4)))
        return add(emit(add(first, weights(4))), first)

    reason = "the sum with the first constant is used elsewhere too"
    assert_leaves(fold_bias, module(body, (2, 4)), reason)


def test_leaves_a_constant_that_varies_over_the_image() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return add(emit(nn.conv2d(x, weights(6, 4, 1, 1))), weights(1, 6, 3, 3))

    assert_leaves(fold_bias, module(body, (1, 4, 3, 3)), "the constant is not one value for each channel")


def test_leaves_constants_whose_sum_is_larger() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return add(emit(add(x, weights(8, 1))), weights(1, 8))

    assert_leaves(fold_bias, module(body, (8, 8)), "the sum of the constants is larger than either")


def test_leaves_a_constant_that_makes_the_tensor_larger() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return add(emit(add(x, weights(4))), weights(2, 1))

    assert_leaves(fold_bias, module(body, (1, 4)), "one of the constants makes the tensor larger")


def test_leaves_residual_additions() -> None:
    def body(emit: Emit, x: relax.Var, y: relax.Var) -> relax.Expr:
        return add(emit(nn.conv2d(x, weights(4, 4, 1, 1))), y)

    assert_leaves(fold_bias, module(body, (1, 4, 3, 3), (1, 4, 3, 3)))
