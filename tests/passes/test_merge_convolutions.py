"""merge_convolutions: two linear layers in a row become one where that is cheaper."""

from __future__ import annotations

from typing import Any

import pytest
import tvm
from tvm import relax
from tvm.relax import op

from evo_tvm.passes.merge_convolutions import merge_convolutions
from tests.passes._check import Emit, assert_leaves, assert_rewrites, calls, module, weights

SHAPE = (1, 4, 7, 6)


def two(first: tuple[int, ...], second: tuple[int, ...], bias: bool = True, *attrs: dict[str, Any]) -> tvm.IRModule:
    """Two convolutions with these kernels, a bias between them or not."""
    one, other = attrs or ({}, {})

    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        y = emit(op.nn.conv2d(x, weights(*first), **one))
        y = emit(op.add(y, weights(1, first[0], 1, 1))) if bias else y
        return op.tanh(emit(op.nn.conv2d(y, weights(*second), **other)))

    return module(body, SHAPE)


@pytest.mark.parametrize(
    ("first", "second", "attrs"),
    [
        ((8, 4, 1, 1), (5, 8, 1, 1), ({}, {})),
        ((8, 4, 1, 1), (5, 8, 1, 1), ({"strides": 2}, {})),
        ((8, 4, 1, 1), (5, 8, 3, 2), ({}, {"dilation": [2, 1]})),
        ((8, 4, 3, 3), (5, 8, 1, 1), ({"padding": [1, 0, 2, 1], "strides": [2, 1]}, {"strides": [1, 2]})),
    ],
    ids=["both 1x1", "strided 1x1", "1x1, 3x2", "3x3, 1x1"],
)
def test_convolutions(first: tuple[int, ...], second: tuple[int, ...], attrs: tuple[dict[str, Any], ...]) -> None:
    assert_rewrites(merge_convolutions, two(first, second, True, *attrs), ["nn.conv2d", "add", "tanh"])
    assert_rewrites(merge_convolutions, two(first, second, False, *attrs), ["nn.conv2d", "tanh"])


def test_padding_without_a_bias_between() -> None:
    before = two((8, 4, 1, 1), (5, 8, 3, 3), False, {}, {"padding": 1})
    after = assert_rewrites(merge_convolutions, before, ["nn.conv2d", "tanh"])
    assert [int(width) for width in calls(after, "nn.conv2d")[0].attrs.padding] == [1] * 4


def test_three_in_a_row() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        for inner, outer in ((4, 8), (8, 8), (8, 4)):
            x = emit(op.add(emit(op.nn.conv2d(x, weights(outer, inner, 1, 1))), weights(1, outer, 1, 1)))
        return op.tanh(x)

    after = merge_convolutions(module(body, SHAPE))
    assert len(calls(after, "nn.conv2d")) == 1


def test_matrix_products() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.tanh(emit(op.matmul(emit(op.add(emit(op.matmul(x, weights(4, 9))), weights(9))), weights(9, 3))))

    assert_rewrites(merge_convolutions, module(body, (2, 5, 4)), ["matmul", "add", "tanh"])


@pytest.mark.parametrize(
    ("first", "second", "bias", "attrs", "reason"),
    [
        ((1, 4, 1, 1), (8, 1, 1, 1), True, (), "one takes 1344 multiplications, the two take 504"),
        ((8, 4, 3, 3), (5, 8, 3, 3), True, (), "neither of the convolutions is 1x1 without padding"),
        ((8, 4, 1, 1), (5, 8, 1, 1), True, ({"padding": 1}, {"padding": 1}),
         "neither of the convolutions is 1x1 without padding"),
        ((8, 4, 1, 1), (5, 8, 3, 3), True, ({}, {"padding": 1}),
         "the second convolution pads with zeros, which the bias does not shift"),
        ((8, 4, 1, 1), (5, 8, 3, 3), True, ({"strides": 2}, {}), "the first convolution has a stride"),
        ((8, 4, 1, 1), (8, 4, 1, 1), True, ({}, {"groups": 2}), "one of the convolutions is grouped"),
    ],
    ids=["factored", "3x3 twice", "padded 1x1", "padding of a bias", "strided", "grouped"],
)  # fmt: skip
def test_leaves(
    first: tuple[int, ...], second: tuple[int, ...], bias: bool, attrs: tuple[dict[str, Any], ...], reason: str
) -> None:
    assert_leaves(merge_convolutions, two(first, second, bias, *attrs), reason)


def test_leaves_what_others_use() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        y = emit(op.matmul(x, weights(4, 9)))
        return relax.Tuple([y, emit(op.matmul(y, weights(9, 3)))])

    assert_leaves(merge_convolutions, module(body, (2, 4)))


def test_leaves_an_activation_between() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.matmul(emit(op.nn.relu(emit(op.matmul(x, weights(4, 9))))), weights(9, 3))

    assert_leaves(merge_convolutions, module(body, (2, 4)))


def test_leaves_a_value_for_every_element_between() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.matmul(emit(op.add(emit(op.matmul(x, weights(4, 9))), weights(2, 9))), weights(9, 3))

    reason = "the constant between the two is not one value for each channel"
    assert_leaves(merge_convolutions, module(body, (2, 4)), reason)


def test_leaves_many_matrices() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.matmul(emit(op.matmul(x, weights(2, 4, 9))), weights(9, 3))

    assert_leaves(merge_convolutions, module(body, (2, 3, 4)), "one of the weights is not a matrix")
