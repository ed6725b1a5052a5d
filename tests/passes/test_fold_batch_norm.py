"""fold_batch_norm: into the weight of whatever is linear, to a scale and a shift elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import relax
from tvm.relax.op import add, matmul, nn

from evo_tvm.passes.fold_batch_norm import fold_batch_norm
from tests.passes._check import Emit, assert_leaves, assert_rewrites, calls, module, weights


def norm(data: relax.Expr, channels: int, axis: int = 1, **options: Any) -> relax.Expr:
    gamma, beta, mean = weights(channels), weights(channels), weights(channels)
    variance = weights(channels, low=0.1, high=2)
    return nn.batch_norm(data, gamma, beta, mean, variance, axis, 1e-5, training=False, **options)


@pytest.mark.parametrize(
    ("groups", "weight"),
    [(1, (6, 4, 3, 3)), (2, (6, 2, 3, 3)), (4, (8, 1, 3, 3))],
    ids=["full", "grouped", "depthwise"],
)
def test_into_a_convolution(groups: int, weight: tuple[int, ...]) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        conv = emit(nn.conv2d(x, weights(*weight), padding=1, groups=groups))
        return emit(norm(conv, weight[0]))[0]

    after = assert_rewrites(fold_batch_norm, module(body, (1, 4, 5, 5)), ["nn.conv2d", "add"])
    assert [int(dim) for dim in calls(after, "add")[0].args[1].ty.shape] == [1, weight[0], 1, 1]


def test_through_a_bias() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return emit(norm(emit(add(emit(nn.conv2d(x, weights(6, 4, 1, 1))), weights(1, 6, 1, 1))), 6))[0]

    assert_rewrites(fold_batch_norm, module(body, (1, 4, 5, 5)), ["nn.conv2d", "add"])


@pytest.mark.parametrize("groups", [1, 2])
def test_into_a_transposed_convolution(groups: int) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return emit(norm(emit(nn.conv2d_transpose(x, weights(4, 3, 2, 2), strides=2, groups=groups)), 3 * groups))[0]

    assert_rewrites(fold_batch_norm, module(body, (1, 4, 3, 3)), ["nn.conv2d_transpose", "add"])


def test_into_a_matrix_product() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return emit(norm(emit(matmul(x, weights(4, 6))), 6))[0]

    after = assert_rewrites(fold_batch_norm, module(body, (3, 4)), ["matmul", "add"])
    assert [int(dim) for dim in calls(after, "add")[0].args[1].ty.shape] == [6]


def test_keeps_the_convolution_s_name() -> None:
    def body(emit: Any, x: relax.Var) -> relax.Expr:
        return emit(norm(emit(nn.conv2d(x, weights(6, 4, 1, 1)), "stem"), 6))[0]

    after = fold_batch_norm(module(body, (1, 4, 2, 2)))
    assert str(after["main"].body.blocks[0].bindings[0].var.name) == "stem"


def test_elsewhere_a_scale_and_a_shift() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return emit(norm(x, 4))[0]

    assert_rewrites(fold_batch_norm, module(body, (2, 4, 3, 3)), ["multiply", "add"])


def test_a_convolution_that_others_use_is_not_scaled() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        conv = emit(nn.conv2d(x, weights(6, 4, 1, 1)))
        return add(emit(emit(norm(conv, 6))[0]), conv)

    assert_rewrites(fold_batch_norm, module(body, (1, 4, 2, 2)), ["nn.conv2d", "multiply", "add", "add"])


def test_a_weight_that_is_not_constant_is_not_scaled() -> None:
    def body(emit: Emit, x: relax.Var, w: relax.Var) -> relax.Expr:
        return emit(norm(emit(nn.conv2d(x, w)), 6))[0]

    assert_rewrites(fold_batch_norm, module(body, (1, 4, 2, 2), (6, 4, 1, 1)), ["nn.conv2d", "multiply", "add"])


def test_without_gamma_and_beta() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return emit(norm(x, 4, center=False, scale=False))[0]

    after = fold_batch_norm(module(body, (1, 4, 2, 2)))
    scale = calls(after, "multiply")[0].args[1].value.numpy()
    assert (scale > 0).all(), "gamma was applied"  # gammas are drawn with both signs
    assert np.isfinite(scale).all()


def test_leaves_training_alone() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        w = weights(4)
        return emit(nn.batch_norm(x, w, w, w, w, 1, training=True))[0]

    reason = "batch_norm normalizes with the statistics of the batch (training=True)"
    assert_leaves(fold_batch_norm, module(body, (2, 4, 2, 2)), reason)


def test_leaves_parameters_that_are_not_constant() -> None:
    def body(emit: Emit, x: relax.Var, w: relax.Var) -> relax.Expr:
        return emit(nn.batch_norm(x, w, w, w, w, 1, training=False))[0]

    reason = "gamma, beta, mean and variance are not all constants"
    assert_leaves(fold_batch_norm, module(body, (2, 4, 2, 2), (4,)), reason)
