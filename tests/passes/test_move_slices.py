"""move_slices: slices go up, so that less is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from evo_tvm.passes.move_slices import move_slices
from tests.passes._check import Body, Emit, assert_leaves, assert_rewrites, calls, module, operators, weights

SHAPE = (2, 6, 5)


def first(x: relax.Expr, axis: int = 1, count: int = 1) -> relax.Expr:
    return op.strided_slice(x, [axis], [0], [count])


def shapes(mod: Any, name: str) -> list[tuple[int, ...]]:
    return [tuple(int(dim) for dim in call.ty.shape) for call in calls(mod, name)]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (lambda e, x: op.exp(x), "exp"),
        (lambda e, x: op.clip(x, 0, 1), "clip"),
        (lambda e, x: op.add(x, weights(5)), "add"),
        (lambda e, x: op.add(x, weights(6, 5)), "add"),
        (lambda e, x: op.nn.softmax(x, -1), "nn.softmax"),
        (lambda e, x: op.nn.layer_norm(x, weights(5), weights(5), [-1]), "nn.layer_norm"),
        (lambda e, x: op.matmul(x, weights(5, 7)), "matmul"),
        (lambda e, x: op.matmul(x, weights(2, 5, 7)), "matmul"),
    ],
    ids=["unary", "clip", "a value a column", "larger constant", "softmax", "layer norm", "product", "many products"],
)
def test_rows(body: Body, name: str) -> None:
    before = module(lambda emit, x: first(emit(body(emit, x))), SHAPE)
    after = assert_rewrites(move_slices, before, ["strided_slice", name])
    assert shapes(after, name)[0][:2] == (2, 1)


def test_part_of_a_constant() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.strided_slice(emit(op.multiply(x, weights(6, 1))), [1, 2], [-5, 0], [5, 5], [2, 3])

    assert_rewrites(move_slices, module(body, SHAPE), ["strided_slice", "multiply"], rtol=0)


def test_two_operands_with_one_source() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        stem = emit(op.exp(x))
        return first(emit(op.add(stem, emit(op.matmul(emit(op.nn.relu(stem)), weights(5, 5))))))

    expected = ["strided_slice", "exp", "nn.relu", "matmul", "add"]
    assert_rewrites(move_slices, module(body, SHAPE), expected)


def test_through_attention() -> None:
    def body(emit: Emit, q: relax.Var, k: relax.Var, v: relax.Var) -> relax.Expr:
        scores = emit(op.nn.softmax(emit(op.matmul(q, k)), -1))
        heads = emit(op.permute_dims(emit(op.matmul(scores, v)), [0, 2, 1, 3]))
        return first(emit(op.reshape(heads, (1, 6, 8))))

    before = module(body, (1, 2, 6, 4), (1, 2, 4, 6), (1, 2, 6, 4))
    after = assert_rewrites(
        move_slices, before, ["strided_slice", "matmul", "nn.softmax", "matmul", "permute_dims", "reshape"]
    )
    assert shapes(after, "matmul") == [(1, 2, 1, 6), (1, 2, 1, 4)]


def queries_and_more(emit: Emit, x: relax.Var) -> list[relax.Var]:
    """(heads, tokens, features) of queries, keys and values, from one product."""
    product = emit(op.add(emit(op.matmul(emit(op.exp(x)), weights(5, 24))), weights(24)))
    heads = emit(op.permute_dims(emit(op.reshape(product, (2, 6, 3, 2, 4))), [2, 0, 3, 1, 4]))
    parts = emit(op.split(heads, 3, 0))
    return [emit(op.reshape(emit(parts[i]), (2, 2, 6, 4))) for i in range(3)]


def test_parts_of_a_split_become_products() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        q, k, v = queries_and_more(emit, x)
        return op.add(emit(op.subtract(q, k)), v)

    each = ["matmul", "add", "reshape", "permute_dims", "reshape"]
    before = module(body, SHAPE)
    after = move_slices(before)
    assert sorted(operators(after)) == sorted([*each * 3, "exp", "subtract", "add"])
    assert shapes(after, "matmul") == [(2, 6, 8)] * 3
    assert_rewrites(move_slices, before, operators(after))


def test_slices_of_one_value_become_products() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        product = emit(op.matmul(x, weights(5, 8)))
        return op.subtract(
            emit(op.strided_slice(product, [2], [0], [4])), emit(op.strided_slice(product, [2], [4], [8]))
        )

    assert_rewrites(move_slices, module(body, SHAPE), ["matmul", "matmul", "subtract"])


def test_leaves_slices_that_overlap() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        product = emit(op.matmul(x, weights(5, 8)))
        parts = [emit(op.strided_slice(product, [2], [begin], [begin + 4])) for begin in (0, 2, 4)]
        return op.add(emit(op.subtract(*parts[:2])), parts[2])

    assert_leaves(move_slices, module(body, SHAPE))


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (2, ["strided_slice", "exp", "reshape"]),
        (-1, ["strided_slice", "exp", "reshape"]),
        ([3, 4], ["strided_slice", "exp"]),
    ],
)
def test_take(places: Any, expected: list[str]) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.take(emit(op.exp(x)), relax.const(np.array(places, "int64")), 1, mode="wrap")

    assert_rewrites(move_slices, module(body, SHAPE), expected, rtol=0)


@pytest.mark.parametrize(
    "body",
    [
        lambda e, x: first(e(op.nn.softmax(x, 1))),
        lambda e, x: first(e(op.nn.layer_norm(x, weights(6, 5), weights(6, 5), [1, 2]))),
        lambda e, x: first(e(op.matmul(x, e(op.permute_dims(x, [0, 2, 1])))), 2),
        lambda e, x: first(e(op.matmul(x, weights(2, 5, 7))), 0),
        lambda e, x: first(e(op.reshape(x, (2, 5, 6)))),
        lambda e, x: first(e(op.exp(x)), count=4),
        lambda e, x: op.strided_slice(e(op.exp(x)), [1], [-1], [-9], [-4]),
        lambda e, x: op.sum(e(first(x)), [2]),
        lambda e, x: op.take(e(op.exp(x)), relax.const(np.array([0, 2], "int64")), 1),
    ],
    ids=["softmax", "layer norm", "columns", "batch", "reshape", "most", "backwards", "input", "apart"],
)
def test_leaves(body: Body) -> None:
    assert_leaves(move_slices, module(body, SHAPE))


def test_leaves_what_others_use() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        stem = emit(op.exp(x))
        return op.add(emit(first(stem)), stem)

    assert_leaves(move_slices, module(body, SHAPE))


def test_leaves_the_bias_of_a_convolution() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        conv = emit(op.nn.conv2d(x, weights(4, 3, 1, 1)))
        return first(emit(op.nn.relu(emit(op.add(conv, weights(1, 4, 1, 1))))))

    reason = "it would part an operator from the kernel that it is fused into"
    assert_leaves(move_slices, module(body, (1, 3, 4, 4)), reason)
