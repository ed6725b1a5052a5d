"""cancel_pairs: the second of a pair undoes, or absorbs, the first."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from evo_tvm.passes.cancel_pairs import cancel_pairs
from tests.passes._check import Body, Emit, assert_leaves, assert_rewrites, calls, module


def quantization(scale: float = 0.5, zero: int = 3, dtype: str = "uint8") -> tuple[relax.Expr, relax.Expr]:
    return relax.const(scale), relax.const(np.array(zero, dtype), dtype)


def both(second: Body, first: Body) -> Body:
    """`second(first(exp(x)))`."""
    return lambda emit, x: second(emit(first(emit(op.exp(x)))))


@pytest.mark.parametrize(
    ("second", "first", "shape", "expected"),
    [
        (lambda x: op.permute_dims(x, [0, 3, 1, 2]), lambda x: op.permute_dims(x, [0, 2, 3, 1]), (1, 2, 3, 4), []),
        (op.permute_dims, op.permute_dims, (2, 3), []),
        (
            lambda x: op.permute_dims(x, [0, 2, 1]),
            lambda x: op.permute_dims(x, [1, 0, 2]),
            (2, 3, 4),
            ["permute_dims"],
        ),
        (lambda x: op.reshape(x, (6, 2)), lambda x: op.reshape(x, (4, 3)), (12,), ["reshape"]),
        (lambda x: op.reshape(x, (2, 3)), lambda x: op.reshape(x, (3, 2)), (2, 3), []),
        (lambda x: op.squeeze(x, [1]), lambda x: op.expand_dims(x, [1]), (2, 3), []),
        (lambda x: op.flatten(x), lambda x: op.expand_dims(x, [0]), (2, 3), ["reshape"]),
        (lambda x: op.astype(x, "float32"), lambda x: op.astype(x, "float64"), (4,), []),
        (lambda x: op.astype(x, "int32"), lambda x: op.astype(x, "float64"), (4,), ["astype"]),
    ],
    ids="NHWC and back|twice reversed|composed|reshapes|and back|squeeze|flatten|wider and back|wider, int".split("|"),
)
def test_pairs(second: Body, first: Body, shape: tuple[int, ...], expected: list[str]) -> None:
    assert_rewrites(cancel_pairs, module(both(second, first), shape), ["exp", *expected], rtol=0)


def test_a_row_of_reshapes_is_one() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.reshape(emit(op.expand_dims(emit(op.squeeze(emit(op.reshape(x, (1, 12))))), [0])), (3, 4))

    assert_rewrites(cancel_pairs, module(body, (2, 6)), ["reshape"], rtol=0)


def test_the_first_stays_for_others() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        first = emit(op.permute_dims(x))
        return relax.Tuple([first, emit(op.exp(emit(op.permute_dims(first))))])

    assert_rewrites(cancel_pairs, module(body, (2, 3)), ["permute_dims", "exp", "Tuple"], rtol=0)


def test_quantize_of_dequantize() -> None:
    def body(emit: Emit, q: relax.Var) -> relax.Expr:
        scale, zero = quantization()
        real = emit(op.dequantize(q, scale, zero, 1, "float32"))
        return op.astype(emit(op.quantize(real, *quantization(), 1, "uint8")), "int32")

    after = assert_rewrites(cancel_pairs, module(body, ((2, 3), "uint8")), ["astype"], rtol=0)
    assert isinstance(calls(after, "astype")[0].args[0], relax.Var)


def test_concat_of_split() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        parts = emit(op.split(emit(op.exp(x)), [1, 3], 1))
        return op.concat([emit(parts[0]), emit(parts[1]), emit(parts[2])], 1)

    assert_rewrites(cancel_pairs, module(body, (2, 6)), ["exp"], rtol=0)


def test_split_of_concat() -> None:
    def body(emit: Emit, x: relax.Var, y: relax.Var) -> relax.Expr:
        parts = emit(op.split(emit(op.concat([x, y], 1)), [2], 1))
        return op.subtract(emit(op.exp(emit(parts[1]))), emit(op.sin(emit(parts[0]))))

    assert_rewrites(cancel_pairs, module(body, (2, 2), (2, 2)), ["exp", "sin", "subtract"], rtol=0)


def test_leaves_a_cast_that_rounds() -> None:
    body = both(lambda x: op.astype(x, "float32"), lambda x: op.astype(x, "float16"))
    assert_leaves(cancel_pairs, module(body, (4,)), "the first cast, float32 to float16, can change values")


def test_leaves_a_cast_to_what_numpy_does_not_know() -> None:
    body = both(lambda x: op.astype(x, "float32"), lambda x: op.astype(x, "bfloat16"))
    assert_leaves(cancel_pairs, module(body, (4,)), "the first cast, float32 to bfloat16, can change values")


def test_leaves_dequantize_of_quantize() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.dequantize(emit(op.quantize(x, *quantization(), 1, "uint8")), *quantization(), 1, "float32")

    assert_leaves(cancel_pairs, module(body, (2, 3)))


@pytest.mark.parametrize(
    ("scale", "zero", "dtype", "reason"),
    [
        (0.25, 3, "uint8", "the scales differ"),
        (0.5, 4, "uint8", "the zero points differ"),
        (0.5, 3, "int8", "the integer types differ"),
    ],
)
def test_leaves_requantization(scale: float, zero: int, dtype: str, reason: str) -> None:
    def body(emit: Emit, q: relax.Var) -> relax.Expr:
        real = emit(op.dequantize(q, *quantization(), 1, "float32"))
        return op.quantize(real, *quantization(scale, zero, dtype), 1, dtype)

    assert_leaves(cancel_pairs, module(body, ((2, 3), "uint8")), reason)


def test_leaves_parts_out_of_order() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        parts = emit(op.split(x, 2, 1))
        return op.concat([emit(parts[1]), emit(parts[0])], 1)

    assert_leaves(cancel_pairs, module(body, (2, 6)))


def test_leaves_parts_cut_elsewhere() -> None:
    def body(emit: Emit, x: relax.Var, y: relax.Var) -> relax.Expr:
        return emit(op.split(emit(op.concat([x, y], 1)), [1], 1))[0]

    assert_leaves(cancel_pairs, module(body, (2, 2), (2, 2)), "cut at [1, 3], joined at [2, 2]")
