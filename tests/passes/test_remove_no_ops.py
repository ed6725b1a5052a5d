"""remove_no_ops: what does nothing goes, what does something stays."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from evo_tvm.passes.remove_no_ops import remove_no_ops
from tests.passes._check import Body, Emit, assert_leaves, assert_rewrites, module

SHAPE = (2, 3, 4, 4)
UNIT = (1, 3, 1, 1)

NOTHING: dict[str, tuple[Body, tuple[int, ...]]] = {
    "reshape to the same shape": (lambda emit, x: op.reshape(x, SHAPE), SHAPE),
    "broadcast to the same shape": (lambda emit, x: op.broadcast_to(x, SHAPE), SHAPE),
    "cast to the same dtype": (lambda emit, x: op.astype(x, "float32"), SHAPE),
    "squeeze of nothing": (lambda emit, x: op.squeeze(x), SHAPE),
    "flatten of a vector": (lambda emit, x: op.flatten(x), (6,)),
    "transpose in order": (lambda emit, x: op.permute_dims(x, [0, 1, 2, 3]), SHAPE),
    "slice of everything": (lambda emit, x: op.strided_slice(x, [2, 3], [0, -4], [1 << 40, 4]), SHAPE),
    "tile once": (lambda emit, x: op.tile(x, [1, 1, 1, 1]), SHAPE),
    "repeat once": (lambda emit, x: op.repeat(x, 1, 1), SHAPE),
    "concatenation of one": (lambda emit, x: op.concat([x], 1), SHAPE),
    "split into one": (lambda emit, x: op.split(x, 1, 1), SHAPE),
    "padding of no width": (lambda emit, x: op.nn.pad(x, [0] * 8), SHAPE),
    "max pool of one element": (lambda emit, x: op.nn.max_pool2d(x, 1), SHAPE),
    "average pool of one element": (lambda emit, x: op.nn.avg_pool2d(x, 1), SHAPE),
    "global pool of one element": (lambda emit, x: op.nn.adaptive_avg_pool2d(x, (1, 1)), UNIT),
    "mean over axes of size one": (lambda emit, x: op.mean(x, [2, 3], True), UNIT),
    "sum over axes of size one": (lambda emit, x: op.sum(x, [0], True), UNIT),
    "multiplication by one": (lambda emit, x: op.multiply(x, relax.const(np.ones((1, 3, 1, 1), "float32"))), SHAPE),
    "division by one": (lambda emit, x: op.divide(x, relax.const(1.0)), SHAPE),
    "power of one": (lambda emit, x: op.power(x, relax.const(1.0)), SHAPE),
    "addition of zero": (lambda emit, x: op.add(x, relax.const(0.0)), SHAPE),
    "subtraction of zero": (lambda emit, x: op.subtract(x, relax.const(0.0)), SHAPE),
    "maximum with minus infinity": (lambda emit, x: op.maximum(x, relax.const(-np.inf, "float32")), SHAPE),
    "minimum with infinity": (lambda emit, x: op.minimum(x, relax.const(np.inf, "float32")), SHAPE),
    "clip without bounds": (lambda emit, x: op.clip(x, -np.inf, np.inf), SHAPE),
}


@pytest.mark.parametrize("name", NOTHING)
def test_removes(name: str) -> None:
    operation, shape = NOTHING[name]

    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.tanh(emit(operation(emit, emit(op.sin(x)))))

    assert_rewrites(remove_no_ops, module(body, shape), ["sin", "tanh"], rtol=0)


def test_removes_dropout() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.exp(emit(emit(op.nn.dropout(x, 0.5))[0]))

    assert_rewrites(remove_no_ops, module(body, (4,)), ["exp"], numbers=False)  # TVM cannot compile dropout


def test_removes_even_what_the_model_returns() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.reshape(emit(op.exp(x)), (4,))

    assert_rewrites(remove_no_ops, module(body, (4,)), ["exp"], rtol=0)


def test_a_transpose_of_unit_axes_is_a_reshape() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.permute_dims(x, [0, 2, 3, 1])

    assert_rewrites(remove_no_ops, module(body, (2, 3, 1, 1)), ["reshape"], rtol=0)


@pytest.mark.parametrize("inner", [op.nn.relu, op.sigmoid, lambda x: op.clip(x, 0, 6), op.nn.softmax])
def test_a_relu_of_what_is_not_negative(inner: Body) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.exp(emit(op.nn.relu(emit(inner(x)))))

    before = module(body, (2, 4))
    name = before["main"].body.blocks[0].bindings[0].value.op.name.removeprefix("relax.")
    assert_rewrites(remove_no_ops, before, [name, "exp"], rtol=0)


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        (lambda emit, x: op.nn.max_pool2d(x, 2), ["nn.max_pool2d"]),
        (lambda emit, x: op.nn.avg_pool2d(x, 3, padding=1), ["nn.avg_pool2d"]),
        (lambda emit, x: op.permute_dims(emit(op.reshape(x, (6, 16)))), ["reshape", "permute_dims"]),
        (lambda emit, x: op.concat([x, emit(op.sigmoid(x))], 1), ["sigmoid", "concat"]),
    ],
    ids=["max pool", "average pool", "reshape, transpose", "concat"],
)
def test_a_relu_past_what_keeps_the_sign(between: Body, expected: list[str]) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.exp(emit(op.nn.relu(emit(between(emit, emit(op.nn.relu(x)))))))

    assert_rewrites(remove_no_ops, module(body, SHAPE), ["nn.relu", *expected, "exp"], rtol=0)


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        (lambda emit, x: op.reshape(x, (4, 2)), (2, 4)),
        (lambda emit, x: op.astype(x, "float16"), (4,)),
        (lambda emit, x: op.strided_slice(x, [0], [-1], [-9], [-1]), (4,)),
        (lambda emit, x: op.permute_dims(x), (2, 4)),
        (lambda emit, x: op.add(x, relax.const(np.zeros((3, 1), "float32"))), (1, 4)),
        (lambda emit, x: op.multiply(x, relax.const(np.array([1, 1, 2, 1], "float32"))), (4,)),
        (lambda emit, x: op.nn.max_pool2d(x, 1, strides=2), (1, 1, 1, 1)),
        (lambda emit, x: op.nn.avg_pool2d(x, 3, padding=1), (1, 1, 4, 4)),
        (lambda emit, x: op.clip(x, 0, np.inf), (4,)),
        (lambda emit, x: op.nn.relu(emit(op.clip(x, -1, 6))), (4,)),
        (lambda emit, x: op.nn.relu(emit(op.concat([emit(op.nn.relu(x)), x], 0))), (4,)),
        (lambda emit, x: emit(op.split(x, 2, 0))[0], (4,)),
        (lambda emit, x: op.sum(x, [0]), (1, 4)),
    ],
    ids=[
        *("reshape", "cast", "flip", "transpose", "broadcast", "product", "strided pool", "same pool", "relu"),
        *("relu of clip", "relu of half", "split", "sum"),
    ],
)
def test_leaves(body: Body, shape: tuple[int, ...]) -> None:
    # a strided pool of a 1x1 image keeps its shape, but is no window of one step: it stays
    assert_leaves(remove_no_ops, module(body, shape))
