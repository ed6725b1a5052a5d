"""fold_scale: into weights, through biases, and into other scales."""

from __future__ import annotations

import pytest
from tvm import relax
from tvm.relax.op import add, matmul, multiply, nn

from evo_tvm.passes.fold_scale import fold_scale
from tests.passes._check import Emit, assert_leaves, assert_rewrites, calls, module, weights

SHARED = "the value before the scale is used elsewhere too"


@pytest.mark.parametrize("scale", [(1, 6, 1, 1), (6, 1, 1), (1,), ()], ids=str)
def test_into_a_convolution(scale: tuple[int, ...]) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return multiply(emit(nn.conv2d(x, weights(6, 4, 3, 3))), weights(*scale))

    assert_rewrites(fold_scale, module(body, (1, 4, 5, 5)), ["nn.conv2d"])


@pytest.mark.parametrize(("groups", "weight"), [(2, (6, 2, 3, 3)), (4, (8, 1, 3, 3))])
def test_into_a_grouped_convolution(groups: int, weight: tuple[int, ...]) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return multiply(emit(nn.conv2d(x, weights(*weight), groups=groups)), weights(1, weight[0], 1, 1))

    assert_rewrites(fold_scale, module(body, (1, 4, 5, 5)), ["nn.conv2d"])


@pytest.mark.parametrize("groups", [1, 2])
def test_into_a_transposed_convolution(groups: int) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        conv = nn.conv2d_transpose(x, weights(4, 3, 2, 2), strides=2, groups=groups)
        return multiply(emit(conv), weights(1, 3 * groups, 1, 1))

    assert_rewrites(fold_scale, module(body, (1, 4, 3, 3)), ["nn.conv2d_transpose"])


def test_into_a_matrix_product() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return multiply(emit(matmul(x, weights(4, 6))), weights(6))

    assert_rewrites(fold_scale, module(body, (2, 3, 4)), ["matmul"])


def test_through_a_bias() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return multiply(emit(add(emit(nn.conv2d(x, weights(6, 4, 1, 1))), weights(1, 6, 1, 1))), weights(1, 6, 1, 1))

    assert_rewrites(fold_scale, module(body, (1, 4, 5, 5)), ["nn.conv2d", "add"])


def test_scales_in_a_row() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        shifted = emit(add(emit(multiply(x, weights(1, 4, 1, 1))), weights(1, 4, 1, 1)))
        return multiply(emit(multiply(shifted, weights(1))), weights(1, 4, 1, 1))

    assert_rewrites(fold_scale, module(body, (1, 4, 2, 2)), ["multiply", "add"])


def test_a_chain_ends_in_the_weight() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        conv = emit(nn.conv2d(x, weights(6, 4, 1, 1)))
        return add(emit(multiply(emit(multiply(conv, weights(1, 6, 1, 1))), weights(1))), weights(1, 6, 1, 1))

    assert_rewrites(fold_scale, module(body, (1, 4, 2, 2)), ["nn.conv2d", "add"])


def test_float64_products_are_rounded_once() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return multiply(emit(multiply(x, relax.const(3.0))), relax.const(1 / 3))

    after = fold_scale(module(body, (2,)))
    assert calls(after, "multiply")[0].args[1].value.numpy() == 1


def test_leaves_a_shared_convolution() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        conv = emit(nn.conv2d(x, weights(6, 4, 1, 1)))
        return add(emit(multiply(conv, weights(1, 6, 1, 1))), conv)

    assert_leaves(fold_scale, module(body, (1, 4, 2, 2)), SHARED)


def test_leaves_a_scale_that_varies_over_the_image() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return multiply(emit(nn.conv2d(x, weights(6, 4, 1, 1))), weights(1, 6, 2, 2))

    assert_leaves(fold_scale, module(body, (1, 4, 2, 2)), "the scale is not one constant for each channel")


def test_leaves_a_bias_that_varies_over_the_image() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return multiply(emit(add(emit(nn.conv2d(x, weights(6, 4, 1, 1))), weights(1, 1, 2, 2))), weights(1))

    reason = "the bias before the scale is not one constant for each channel"
    assert_leaves(fold_scale, module(body, (1, 4, 2, 2)), reason)


def test_leaves_an_infinite_scale() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return multiply(emit(nn.conv2d(x, weights(6, 4, 1, 1))), relax.const(float("inf")))

    assert_leaves(fold_scale, module(body, (1, 4, 2, 2)), "the scale is not finite")


def test_leaves_scales_whose_product_is_larger() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return multiply(emit(multiply(x, weights(8, 1))), weights(1, 8))

    assert_leaves(fold_scale, module(body, (8, 8)), "the product of the constants is larger than either")


def test_leaves_a_scale_that_makes_the_tensor_larger() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return multiply(emit(multiply(x, weights(3, 1))), weights(1))

    assert_leaves(fold_scale, module(body, (1, 4)), "the first scale makes the tensor larger")


def test_leaves_what_is_not_constant() -> None:
    def body(emit: Emit, x: relax.Var, scale: relax.Var) -> relax.Expr:
        return multiply(emit(nn.conv2d(x, weights(6, 4, 1, 1))), scale)

    assert_leaves(fold_scale, module(body, (1, 4, 2, 2), (1, 6, 1, 1)))
