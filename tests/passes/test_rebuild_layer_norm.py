"""rebuild_layer_norm: from means, differences and roots."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from evo_tvm.passes.rebuild_layer_norm import rebuild_layer_norm
from tests.passes._check import Body, Emit, assert_leaves, assert_rewrites, calls, module, weights

SHAPE = (2, 4, 5, 6)
NORM = "nn.layer_norm"


def normal(emit: Emit, x: relax.Expr, axes: list[int], way: str = "divide", variance_axes: list[int] | None = None,
           keepdims: bool = True) -> relax.Expr:  # fmt: skip
    centred = emit(op.subtract(x, emit(op.mean(x, axes, True))))
    again = emit(op.subtract(x, emit(op.mean(x, axes, True)))) if way == "twice" else centred
    variance = emit(op.mean(emit(op.multiply(again, again)), variance_axes or axes, keepdims))
    shifted = emit(op.add(variance, relax.const(np.float32(1e-3))))
    if way == "rsqrt":
        return op.multiply(centred, emit(op.rsqrt(shifted)))
    root = emit(op.sqrt(shifted))
    if way == "reciprocal":
        return op.multiply(emit(op.divide(relax.const(1.0), root)), centred)
    return op.divide(centred, root)


@pytest.mark.parametrize("way", ["divide", "rsqrt", "reciprocal", "twice"])
def test_rebuilds(way: str) -> None:
    after = assert_rewrites(rebuild_layer_norm, module(lambda e, x: normal(e, x, [-1], way), SHAPE), [NORM])
    call = calls(after, NORM)[0]
    assert [int(axis) for axis in call.attrs.axes] == [3]
    assert float(call.attrs.epsilon) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("axes", "constant"),
    [([3], (6,)), ([1], (4, 1, 1)), ([2, 3], (5, 6)), ([3, 2], (1, 1, 5, 1)), ([3], ())],
    ids=["last", "channels", "two", "two, one value a row", "scalar"],
)
def test_scale_and_shift_go_inside(axes: list[int], constant: tuple[int, ...]) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        scaled = emit(op.multiply(emit(normal(emit, x, axes)), weights(*constant)))
        return op.add(emit(op.add(scaled, weights(*constant))), weights(*constant))

    assert_rewrites(rebuild_layer_norm, module(body, SHAPE), [NORM])


@pytest.mark.parametrize(
    "body",
    [
        lambda e, x: normal(e, x, [3], variance_axes=[2]),
        lambda e, x: normal(e, x, [0], keepdims=False),
        lambda e, x: op.divide(e(op.subtract(x, e(op.mean(x, [3], True)))), e(op.sqrt(e(op.mean(x, [3], True))))),
        lambda e, x: op.divide(x, e(op.sqrt(e(op.add(e(op.mean(e(op.multiply(x, x)), [3], True)), weights()))))),
    ],
    ids=["other axes", "axis dropped", "no variance", "not centred"],
)
def test_leaves(body: Body) -> None:
    assert_leaves(rebuild_layer_norm, module(body, (2, 4, 4, 4)))


def normalized(x: relax.Expr) -> relax.Expr:
    return op.nn.layer_norm(x, weights(6), weights(6), [-1])


def test_leaves_a_scale_along_another_axis() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.multiply(emit(normalized(x)), weights(5, 1))

    assert_leaves(rebuild_layer_norm, module(body, SHAPE), "the constant differs along an axis that is not normalized")


def test_leaves_a_normalized_value_that_others_use() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        norm = emit(normalized(x))
        return op.exp(emit(op.add(emit(op.add(norm, weights(6))), norm)))

    assert_leaves(rebuild_layer_norm, module(body, SHAPE), "the normalized value is used elsewhere too")


def test_leaves_half_precision() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        centred = emit(op.subtract(x, emit(op.mean(x, [1], True))))
        variance = emit(op.mean(emit(op.multiply(centred, centred)), [1], True))
        return op.divide(centred, emit(op.sqrt(emit(op.add(variance, relax.const(1e-3, "float16"))))))

    assert_leaves(rebuild_layer_norm, module(body, ((2, 4), "float16")))
