"""fold_constants: what depends on constants alone is computed ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from evo_tvm.passes import fold_constants as under_test
from evo_tvm.passes._numpy import EVALUATORS
from evo_tvm.passes.fold_constants import fold_constants
from tests.passes._check import Emit, assert_leaves, assert_rewrites, calls, module, run, weights


def f32(*values: float) -> Any:
    return relax.const(np.array(values, "float32"))


def i64(*values: int) -> Any:
    return relax.const(np.array(values, "int64"), "int64")


MATRIX = relax.const(np.arange(6, dtype="float32").reshape(2, 3) - 2)
BINARY = "add subtract multiply divide maximum minimum equal not_equal less less_equal greater greater_equal"
UNARY = "abs negative sign exp log sqrt rsqrt tanh sin cos floor ceil isnan isinf isfinite"
#: One call, at least, of every operator that can be folded, each with what it is to be compared with: TVM's result.
CALLS: dict[str, Callable[[], Any]] = {
    **{
        name: (lambda name=name: getattr(op, name)(f32(1, -2, 3), f32(2, 2, 3)))  # type: ignore[misc]
        for name in BINARY.split()
    },
    **{
        name: (lambda name=name: getattr(op, name)(f32(0.5, 2, 3)))  # type: ignore[misc]
        for name in UNARY.split()
    },
    **{
        name: (lambda name=name: getattr(op, name)(MATRIX, [1], True))  # type: ignore[misc]
        for name in ("sum", "mean", "max", "min", "prod")
    },
    "power": lambda: op.power(f32(1, 2, 3), f32(2, 0.5, -1)),
    "logical_and": lambda: op.logical_and(op_bool(True, False), op_bool(True, True)),
    "logical_or": lambda: op.logical_or(op_bool(True, False), op_bool(False, False)),
    "logical_xor": lambda: op.logical_xor(op_bool(True, False), op_bool(True, True)),
    "logical_not": lambda: op.logical_not(op_bool(True, False)),
    "where": lambda: op.where(op_bool(True, False), f32(1, 2), f32(3, 4)),
    "nn.relu": lambda: op.nn.relu(MATRIX),
    "reshape": lambda: op.reshape(MATRIX, (3, 2)),
    "squeeze": lambda: op.squeeze(weights(1, 3, 1), [0]),
    "expand_dims": lambda: op.expand_dims(MATRIX, [1]),
    "flatten": lambda: op.flatten(MATRIX),
    "nn.batch_flatten": lambda: op.nn.batch_flatten(weights(2, 3, 2)),
    "broadcast_to": lambda: op.broadcast_to(f32(1, 2, 3), (2, 3)),
    "permute_dims": lambda: op.permute_dims(MATRIX),
    "astype": lambda: op.astype(f32(-1.7, 2.2), "int32"),
    "concat": lambda: op.concat([MATRIX, MATRIX], 1),
    "stack": lambda: op.stack([MATRIX, MATRIX], 1),
    "strided_slice": lambda: op.strided_slice(MATRIX, [1], [-1], [-4], [-2]),
    "take": lambda: op.take(MATRIX, i64(2, 0), 1),
    "tile": lambda: op.tile(MATRIX, [2, 1]),
    "repeat": lambda: op.repeat(MATRIX, 2, 1),
    "nn.pad": lambda: op.nn.pad(MATRIX, [0, 1, 2, 0], "constant", 3.0),
    "clip": lambda: op.clip(MATRIX, -1, 2),
    "full": lambda: op.full((2, 2), relax.const(3.0), "float32"),
    "zeros": lambda: op.zeros((2, 2), "float32"),
    "ones": lambda: op.ones((2, 2), "int32"),
    "zeros_like": lambda: op.zeros_like(MATRIX),
    "ones_like": lambda: op.ones_like(MATRIX),
    "arange": lambda: op.arange(1, 9, 3, "int64"),
    "shape_to_tensor": lambda: op.shape_to_tensor(relax.ShapeExpr([2, 3])),
}


def op_bool(*values: bool) -> Any:
    return relax.const(np.array(values), "bool")


def test_every_operator_is_tested() -> None:
    assert {f"relax.{name}" for name in CALLS} == set(EVALUATORS)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_gives_what_tvm_gives(name: str) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return emit(CALLS[name]())

    before = module(body, (1,))
    after = fold_constants(before)
    assert not calls(after, name)
    x = np.zeros(1, "float32")
    wanted, got = run(before, [x])[0], after["main"].body.blocks[0].bindings[0].value.value.numpy()
    assert (wanted.dtype, wanted.shape) == (got.dtype, got.shape)
    # exp, log and the like differ by what TVM's approximations are off; all else is exact
    np.testing.assert_allclose(got, wanted, rtol=2e-6 if name in ("exp", "log", "tanh", "sin", "cos", "rsqrt") else 0)


def test_a_chain() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        bias = emit(op.reshape(emit(op.multiply(f32(1, 2, 3, 4), f32(2))), (1, 4, 1, 1)))
        return op.add(x, bias)

    after = assert_rewrites(fold_constants, module(body, (1, 4, 2, 2)), ["add"], rtol=0)
    assert calls(after, "add")[0].args[1].value.numpy().ravel().tolist() == [2, 4, 6, 8]


@pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "uint64", "bool"])
def test_dtypes(dtype: str) -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.concat([x, emit(op.reshape(relax.const(np.array([[1, 0]], dtype), dtype), (2,)))], 0)

    after = assert_rewrites(fold_constants, module(body, ((1,), dtype)), ["concat"], numbers=False)
    folded = calls(after, "concat")[0].args[0].fields[1].value.numpy()
    np.testing.assert_array_equal(folded, np.array([1, 0], dtype), strict=True)


def test_leaves_dtypes_that_numpy_lacks() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.add(x, emit(op.astype(relax.const(1.0), "bfloat16")))

    assert_leaves(fold_constants, module(body, ((4,), "bfloat16")))


def test_a_transposed_matrix_larger_than_a_block() -> None:
    weight = weights(100, 700)

    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.matmul(x, emit(op.permute_dims(weight)))

    after = assert_rewrites(fold_constants, module(body, (1, 700)), ["matmul"], rtol=0)
    np.testing.assert_array_equal(calls(after, "matmul")[0].args[1].value.numpy(), weight.value.numpy().T)


def test_leaves_what_would_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "MAX_GROWTH_BYTES", 1 << 20)

    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.add(x, emit(op.broadcast_to(relax.const(1.0), (1024, 1024))))

    assert_leaves(fold_constants, module(body, (1, 1024)), "the constant would grow to 4 MiB (at most 1)")


def test_folds_large_constants_that_do_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "MAX_GROWTH_BYTES", 1 << 10)

    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.add(x, emit(op.reshape(weights(1024), (1, 1024))))

    assert_rewrites(fold_constants, module(body, (1, 1024)), ["add"], rtol=0)


def test_leaves_integer_division() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.add(x, emit(op.divide(i64(-7), i64(2))))

    reason = "numpy and Relax define it differently on integers"
    assert_leaves(fold_constants, module(body, ((1,), "int64")), reason)


def test_leaves_quantized_weights() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        weight = relax.const(np.array([[1, 2]], "int8"), "int8")
        return op.add(x, emit(op.dequantize(weight, relax.const(0.5), relax.const(0, "int8"), 0, "float32")))

    assert_leaves(fold_constants, module(body, (1, 2)))


def test_leaves_what_depends_on_an_input() -> None:
    def body(emit: Emit, x: relax.Var) -> relax.Expr:
        return op.add(emit(op.reshape(x, (2, 2))), f32(1))

    assert_leaves(fold_constants, module(body, (4,)))
