"""fold_input_scale: what comes before a convolution or a matrix product goes into its weight."""

from __future__ import annotations

import pytest
from tvm import relax
from tvm.relax.op import add, matmul, multiply, nn

from evo_tvm.passes.fold_input_scale import fold_input_scale
from tests.passes._check import Emit, assert_leaves, assert_rewrites, module, weights

CASES = [(1, (6, 4, 3, 3)), (2, (6, 2, 3, 3)), (4, (8, 1, 3, 3))]


@pytest.mark.parametrize(("groups", "weight"), CASES, ids=["full", "grouped", "depthwise"])
def test_a_scale_even_where_there_is_padding(groups: int, weight: tuple[int, ...]) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return nn.conv2d(emit(multiply(x, weights(1, 4, 1, 1))), weights(*weight), padding=1, groups=groups)

    assert_rewrites(fold_input_scale, module(body, (1, 4, 5, 5)), ["nn.conv2d"])


@pytest.mark.parametrize(("groups", "weight"), CASES, ids=["full", "grouped", "depthwise"])
def test_a_shift_without_padding(groups: int, weight: tuple[int, ...]) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return nn.conv2d(emit(add(x, weights(4, 1, 1))), weights(*weight), groups=groups)

    assert_rewrites(fold_input_scale, module(body, (1, 4, 5, 5)), ["nn.conv2d", "add"])


def test_both_before_a_matrix_product() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return matmul(emit(add(emit(multiply(x, weights(4))), weights(1))), weights(4, 6))

    assert_rewrites(fold_input_scale, module(body, (2, 4)), ["matmul", "add"])


def test_leaves_a_shift_before_padding() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return nn.conv2d(emit(add(x, weights(4, 1, 1))), weights(6, 4, 3, 3), padding=1)

    reason = "the convolution pads with zeros, which the addition does not shift"
    assert_leaves(fold_input_scale, module(body, (1, 4, 5, 5)), reason)


def test_leaves_a_relu_between() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return nn.conv2d(emit(nn.relu(emit(multiply(x, weights(1, 4, 1, 1))))), weights(6, 4, 1, 1))

    assert_leaves(fold_input_scale, module(body, (1, 4, 5, 5)))


def test_leaves_the_bias_of_the_operator_before() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        first = emit(add(emit(nn.conv2d(x, weights(5, 4, 1, 1))), weights(1, 5, 1, 1)))
        return nn.conv2d(first, weights(6, 5, 1, 1))

    assert_leaves(fold_input_scale, module(body, (1, 4, 5, 5)))


def test_leaves_a_shared_product() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        scaled = emit(multiply(x, weights(1, 4, 1, 1)))
        return add(emit(nn.conv2d(scaled, weights(4, 4, 1, 1))), scaled)

    assert_leaves(fold_input_scale, module(body, (1, 4, 5, 5)), "the operator's input is used elsewhere too")


def test_leaves_a_scale_that_varies_over_the_image() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return nn.conv2d(emit(multiply(x, weights(5, 5))), weights(6, 4, 1, 1))

    reason = "the constant is not one value for each input channel"
    assert_leaves(fold_input_scale, module(body, (1, 4, 5, 5)), reason)


def test_leaves_weights_of_a_batch() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return matmul(emit(multiply(x, weights(4))), weights(3, 4, 6))

    assert_leaves(fold_input_scale, module(body, (3, 2, 4)), "the weight is not a matrix")
