"""move_activations: elementwise operators up past concatenations and paddings, to kernels."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from evo_tvm.passes.move_activations import move_activations
from tests.passes._check import Body, Emit, assert_leaves, assert_rewrites, calls, module, weights

SHAPE = (1, 3, 4, 4)
NO_KERNEL = "some of what is joined does not come from a kernel of its own"


def conv(emit: Emit, x: relax.Expr, channels: int) -> relax.Var:
    return emit(op.nn.conv2d(x, weights(channels, 3, 1, 1)))


def joined(emit: Emit, x: relax.Expr, axis: int = 1) -> relax.Var:
    pool = emit(op.nn.max_pool2d(emit(op.exp(x)), 1))
    return emit(op.concat([conv(emit, x, 3), pool, emit(op.add(conv(emit, x, 3), weights(3, 1, 1)))], axis))


@pytest.mark.parametrize(
    ("body", "axis", "name"),
    [
        (lambda e, x: op.nn.relu(x), 1, "nn.relu"),
        (lambda e, x: op.clip(x, 0, 1), 2, "clip"),
        (lambda e, x: op.multiply(x, weights(9, 1, 1)), 1, "multiply"),
        (lambda e, x: op.add(x, weights(3, 1, 1)), -1, "add"),
        (lambda e, x: op.multiply(x, weights()), 1, "multiply"),
    ],
    ids=["relu", "clip of rows", "a value a channel", "channels apart", "scalar"],
)
def test_past_a_concatenation(body: Body, axis: int, name: str) -> None:
    before = module(lambda e, x: op.tanh(e(body(e, joined(e, x, axis)))), SHAPE)
    expected = ["exp", "nn.max_pool2d", "nn.conv2d", "nn.conv2d", "add", *[name] * 3, *["tanh"] * 3, "concat"]
    after = move_activations(before)
    names = [call for call in (name, "tanh", "concat", "nn.conv2d", "nn.max_pool2d")]
    wanted = {n: expected.count(n) for n in names}
    assert {n: len(calls(after, n)) for n in names} == wanted
    order = [b.value.op.name.removeprefix("relax.") for b in after["main"].body.blocks[0].bindings]
    assert_rewrites(move_activations, before, order)
    assert order[-1] == "concat"


@pytest.mark.parametrize(
    ("body", "name", "value"),
    [
        (lambda e, x: op.nn.relu(x), "nn.relu", 0.0),
        (lambda e, x: op.clip(x, 2, 3), "clip", 2.0),
        (lambda e, x: op.multiply(x, weights(3, 1, 1)), "multiply", 0.0),
        (lambda e, x: op.add(x, relax.const(np.float32(0.5))), "add", 0.5),
    ],
)
def test_past_a_padding(body: Body, name: str, value: float) -> None:
    def whole(emit: Emit, x: relax.Var) -> relax.Expr:
        return body(emit, emit(op.nn.pad(conv(emit, x, 3), [0, 0, 0, 0, 1, 2, 0, 1])))

    after = assert_rewrites(move_activations, module(whole, SHAPE), ["nn.conv2d", name, "nn.pad"])
    assert float(calls(after, "nn.pad")[0].attrs.pad_value) == value


def test_leaves_what_comes_from_no_kernel() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.nn.relu(emit(op.concat([conv(emit, x, 3), x], 1)))

    assert_leaves(move_activations, module(body, SHAPE), NO_KERNEL)


def test_leaves_a_part_that_others_use() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        part = conv(emit, x, 3)
        return op.concat([emit(op.nn.relu(emit(op.concat([conv(emit, x, 3), part], 1)))), part], 1)

    assert_leaves(move_activations, module(body, SHAPE), NO_KERNEL)


def shared(emit: Emit, x: relax.Var) -> relax.Expr:
    both = joined(emit, x)
    return op.concat([both, emit(op.nn.relu(both))], 1)


def not_elementwise(emit: Emit, x: relax.Var) -> relax.Expr:
    return op.nn.softmax(joined(emit, x), 1)


def mirrored(emit: Emit, x: relax.Var) -> relax.Expr:
    return op.nn.relu(emit(op.nn.pad(conv(emit, x, 3), [0, 0, 0, 0, 1, 1, 1, 1], "reflect")))


@pytest.mark.parametrize("body", [shared, not_elementwise, mirrored])
def test_leaves(body: Body) -> None:
    assert_leaves(move_activations, module(body, SHAPE))


@pytest.mark.parametrize(
    ("constant", "reason"),
    [
        (lambda: weights(3, 1, 1), "the padding would have more than one value"),
        (lambda: relax.const(np.full((6, 1), 0.5, "float32")), "the constant differs along a padded axis"),
    ],
)
def test_leaves_a_shift_of_the_padding(constant: Body, reason: str) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.add(emit(op.nn.pad(conv(emit, x, 3), [0, 0, 0, 0, 1, 1, 0, 0])), constant())

    assert_leaves(move_activations, module(body, SHAPE), reason)


def test_leaves_the_padding_of_an_input() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.nn.relu(emit(op.nn.pad(x, [0, 0, 0, 0, 1, 1, 0, 0])))

    assert_leaves(move_activations, module(body, SHAPE), "what is padded does not come from a kernel of its own")
