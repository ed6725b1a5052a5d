"""fold_pad: into what pads by itself, where the padding means the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op
from tvm.relax.op import nn

from evo_tvm.passes.fold_pad import fold_pad
from tests.passes._check import Emit, assert_leaves, assert_rewrites, calls, module, weights

SHAPE = (1, 4, 7, 6)
WIDTHS = [0, 0, 0, 0, 1, 2, 0, 1]  # top 1, bottom 2, left 0, right 1


def padded(x: relax.Expr, value: float = 0.0, mode: str = "constant", widths: list[int] = WIDTHS) -> relax.Expr:
    return nn.pad(x, widths, mode, value)


def padding(mod: Any, name: str) -> list[int]:
    return [int(width) for width in calls(mod, name)[0].attrs.padding]


@pytest.mark.parametrize("own", [0, 1])
@pytest.mark.parametrize("groups", [1, 4])
def test_into_a_convolution(own: int, groups: int) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        weight = weights(8, 4 // groups, 3, 3)
        return nn.conv2d(emit(padded(x)), weight, strides=2, padding=own, groups=groups)

    after = assert_rewrites(fold_pad, module(body, SHAPE), ["nn.conv2d"])
    assert padding(after, "nn.conv2d") == [1 + own, own, 2 + own, 1 + own]
    assert [int(step) for step in calls(after, "nn.conv2d")[0].attrs.strides] == [2, 2]
    assert int(calls(after, "nn.conv2d")[0].attrs.groups) == groups


@pytest.mark.parametrize(("own", "counts"), [(0, False), (0, True), (1, True)])
def test_into_an_average_pool_that_counts_the_zeros(own: int, counts: bool) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return nn.avg_pool2d(emit(padded(x)), 3, 2, own, count_include_pad=counts)

    after = assert_rewrites(fold_pad, module(body, SHAPE), ["nn.avg_pool2d"])
    assert padding(after, "nn.avg_pool2d") == [1 + own, own, 2 + own, 1 + own]
    assert calls(after, "nn.avg_pool2d")[0].attrs.count_include_pad


def test_into_a_max_pool_of_a_relu() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return nn.max_pool2d(emit(padded(emit(nn.relu(x)))), 3, 2)

    after = assert_rewrites(fold_pad, module(body, SHAPE), ["nn.relu", "nn.max_pool2d"], rtol=0)
    assert padding(after, "nn.max_pool2d") == [1, 0, 2, 1]


def test_minus_infinity_into_a_max_pool() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return nn.max_pool2d(emit(padded(x, float(np.finfo("float32").min))), 3, 2)

    assert_rewrites(fold_pad, module(body, SHAPE), ["nn.max_pool2d"], rtol=0)


def test_into_each_of_several_users() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        pad = emit(padded(x))
        return op.add(emit(nn.conv2d(pad, weights(4, 4, 3, 3))), emit(nn.avg_pool2d(pad, 3)))

    assert_rewrites(fold_pad, module(body, SHAPE), ["nn.conv2d", "nn.avg_pool2d", "add"])


CONV = "nn.conv2d"
REFUSED: dict[str, tuple[Callable[[relax.Expr], relax.Expr], str, str]] = {
    "another value": (lambda x: padded(x, 1.0), CONV, "it pads with 1, the operator with 0"),
    "a reflection": (lambda x: padded(x, 0.0, "reflect"), CONV, "the padding is of mode reflect"),
    "channels": (
        lambda x: padded(x, widths=[0, 0, 1, 0, 1, 1, 1, 1]), "nn.avg_pool2d", "it does not only pad height and width",
    ),
    "zeros before a maximum": (padded, "nn.max_pool2d", "it pads with 0, which can exceed what the pool sees"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_leaves(name: str) -> None:
    pad, kind, reason = REFUSED[name]

    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        data = emit(pad(x))
        return nn.conv2d(data, weights(8, 4, 3, 3)) if kind == CONV else getattr(op.nn, kind[3:])(data, 3)

    assert_leaves(fold_pad, module(body, SHAPE), reason)


def test_leaves_zeros_that_fill_a_window_of_a_max_pool() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return nn.max_pool2d(emit(padded(emit(nn.relu(x)))), 2, 2)

    assert_leaves(fold_pad, module(body, SHAPE), "some windows would hold nothing but padding")


def test_leaves_dilated_max_pools() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return nn.max_pool2d(emit(padded(emit(nn.relu(x)))), 3, 1, dilation=2)

    assert_leaves(fold_pad, module(body, SHAPE), "the windows are dilated")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"ceil_mode": True}, "with ceil_mode, which windows there are depends on the padding"),
        ({"padding": 1, "count_include_pad": False}, "the pool counts these zeros, but not its own padding"),
    ],
)
def test_leaves_average_pools_that_count_otherwise(options: dict[str, Any], reason: str) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return nn.avg_pool2d(emit(padded(x)), 3, 2, **options)

    assert_leaves(fold_pad, module(body, SHAPE), reason)
