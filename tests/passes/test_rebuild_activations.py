"""rebuild_activations: bounds become clips and ReLUs, products with a sigmoid SiLU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from evo_tvm.passes.rebuild_activations import rebuild_activations
from tests.passes._check import Body, Emit, assert_leaves, assert_rewrites, calls, module, weights


def bounds(mod: Any) -> tuple[float, ...]:
    return tuple(float(bound.value) for bound in calls(mod, "clip")[0].args[1:])


def f(value: float) -> relax.Expr:
    return relax.const(np.float32(value))


@pytest.mark.parametrize(
    "body",
    [
        lambda emit, x: op.minimum(emit(op.maximum(x, f(0))), f(6)),
        lambda emit, x: op.maximum(emit(op.minimum(x, f(6))), f(0)),
        lambda emit, x: op.minimum(emit(op.nn.relu(x)), f(6)),
        lambda emit, x: op.clip(emit(op.nn.relu(x)), -1, 6),
        lambda emit, x: op.nn.relu(emit(op.clip(x, -1, 6))),
        lambda emit, x: op.nn.relu6(x),
        lambda emit, x: op.minimum(emit(op.clip(emit(op.nn.relu(x)), -1, 9)), f(6)),
    ],
    ids=["max, min", "min, max", "relu, min", "relu, clip", "clip, relu", "relu6", "three"],
)
def test_to_one_clip(body: Body) -> None:
    after = assert_rewrites(rebuild_activations, module(lambda e, x: body(e, e(op.multiply(x, f(4)))), (2, 9)),
                            ["multiply", "clip"], rtol=0)  # fmt: skip
    assert bounds(after) == (0, 6)


@pytest.mark.parametrize(
    "body",
    [
        lambda emit, x: op.maximum(x, f(0)),
        lambda emit, x: op.clip(x, 0, np.inf),
        lambda emit, x: op.nn.relu(emit(op.maximum(x, f(-1)))),
        lambda emit, x: op.nn.relu(emit(op.nn.relu(x))),
    ],
    ids=["maximum", "clip", "maximum, relu", "relu, relu"],
)
def test_to_one_relu(body: Body) -> None:
    assert_rewrites(rebuild_activations, module(body, (2, 9)), ["nn.relu"], rtol=0)


def test_bounds_that_do_not_overlap() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.clip(emit(op.clip(x, 3, 4)), 0, 1)

    after = assert_rewrites(rebuild_activations, module(body, (9,)), ["clip"], rtol=0)
    assert bounds(after) == (1, 1)


@pytest.mark.parametrize("gate_first", [False, True])
def test_silu(gate_first: bool) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        gate = emit(op.sigmoid(x))
        return op.multiply(gate, x) if gate_first else op.multiply(x, gate)

    assert_rewrites(rebuild_activations, module(body, (2, 9)), ["nn.silu"])


def test_prelu_with_one_slope() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.nn.prelu(x, relax.const(np.full(3, 0.25, "float32")), 1)

    assert_rewrites(rebuild_activations, module(body, (2, 3)), ["nn.leakyrelu"], rtol=0)


def minus(emit: Emit, x: relax.Expr) -> relax.Var:
    return emit(op.multiply(x, f(-1)))


def negative_part(emit: Emit, x: relax.Expr, slope: relax.Expr) -> relax.Var:
    low, high = (relax.prim_value(bound, "float32") for bound in (-np.inf, 0.0))
    return emit(op.multiply(emit(op.clip(x, low, high)), slope))


def mirrored_part(emit: Emit, x: relax.Expr, slope: relax.Expr) -> relax.Var:
    return emit(op.multiply(emit(op.nn.relu(minus(emit, x))), slope))


@pytest.mark.parametrize(
    "body",
    [
        lambda emit, x: op.add(emit(op.nn.relu(x)), negative_part(emit, x, weights(3, 1))),
        lambda emit, x: op.add(negative_part(emit, x, weights(3, 1)), emit(op.nn.relu(x))),
        lambda emit, x: op.subtract(emit(op.nn.relu(x)), mirrored_part(emit, x, weights(3, 1))),
        lambda emit, x: op.add(emit(op.nn.relu(x)), mirrored_part(emit, x, weights(1, 3, 1))),
    ],
    ids=["negative part", "the other way round", "mirrored", "mirrored, negative slope"],
)
def test_prelu(body: Body) -> None:
    after = assert_rewrites(rebuild_activations, module(body, (2, 3, 4)), ["nn.prelu"])
    assert int(calls(after, "nn.prelu")[0].attrs.axis) == 1


@pytest.mark.parametrize(
    "body",
    [
        lambda emit, x: op.maximum(x, emit(op.multiply(x, f(0.2)))),
        lambda emit, x: op.maximum(emit(op.multiply(x, f(0.2))), x),
        lambda emit, x: op.add(emit(op.nn.relu(x)), negative_part(emit, x, f(0.2))),
    ],
    ids=["maximum", "the other way round", "parts"],
)
def test_leaky_relu(body: Body) -> None:
    assert_rewrites(rebuild_activations, module(body, (2, 3, 4)), ["nn.leakyrelu"])


@pytest.mark.parametrize(
    "body",
    [
        lambda emit, x: op.maximum(x, emit(op.multiply(x, f(1.5)))),
        lambda emit, x: op.add(emit(op.nn.relu(x)), negative_part(emit, emit(op.exp(x)), weights(3, 1))),
        lambda emit, x: op.add(emit(op.nn.relu(x)), negative_part(emit, x, weights(3, 4))),
        lambda emit, x: op.subtract(mirrored_part(emit, x, weights(3, 1)), emit(op.nn.relu(x))),
    ],
    ids=["slope above one", "of another value", "slope an element", "turned round"],
)
def test_leaves_what_is_no_prelu(body: Body) -> None:
    assert_leaves(rebuild_activations, module(body, (2, 3, 4)))


@pytest.mark.parametrize(
    "body",
    [
        lambda emit, x: op.maximum(x, weights(3)),
        lambda emit, x: op.maximum(x, f(np.nan)),
        lambda emit, x: op.maximum(x, relax.const(np.zeros((4, 1), "float32"))),
        lambda emit, x: op.nn.prelu(x, weights(3), 1),
        lambda emit, x: op.multiply(x, emit(op.sigmoid(emit(op.exp(x))))),
    ],
    ids=["bound a channel", "not a number", "broadcast", "slope a channel", "sigmoid of another"],
)
def test_leaves(body: Body) -> None:
    assert_leaves(rebuild_activations, module(body, (1, 3)))


def test_leaves_a_value_that_others_use() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        first = emit(op.nn.relu(x))
        return op.add(emit(op.clip(first, relax.prim_value(0.0, "float32"), relax.prim_value(6.0, "float32"))), first)

    assert_leaves(rebuild_activations, module(body, (4,)), "the value between the two is used elsewhere too")


def test_leaves_bounds_the_wrong_way_round() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        clip = emit(op.clip(x, relax.prim_value(6.0, "float32"), relax.prim_value(0.0, "float32")))
        return op.nn.relu(clip)

    assert_leaves(rebuild_activations, module(body, (4,)), "a lower bound is above its upper bound")


def test_leaves_integers() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.maximum(x, relax.const(0, "int32"))

    assert_leaves(rebuild_activations, module(body, ((4,), "int32")))
