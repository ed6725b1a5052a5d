"""Any TIR function gets vectors, or keeps its loops; its result stays what it was."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tvm
from tvm import te, tirx
from tvm.script import tirx as T

from evo_tvm.executor.codegen import assembly
from evo_tvm.schedules import default
from evo_tvm.target import resolve

TARGET = resolve("x86-64-v3")


def softmax() -> tirx.PrimFunc:
    x = te.placeholder((6, 40), name="x")
    k, j = te.reduce_axis((0, 40), "k"), te.reduce_axis((0, 40), "j")
    top = te.compute((6,), lambda i: te.max(x[i, k], axis=[k]), name="top")
    e = te.compute((6, 40), lambda i, c: tirx.exp(x[i, c] - top[i]), name="e")
    total = te.compute((6,), lambda i: te.sum(e[i, j], axis=[j]), name="total")
    return te.create_prim_func([x, te.compute((6, 40), lambda i, c: e[i, c] / total[i], name="y")])


def matmul() -> tirx.PrimFunc:
    a, b = te.placeholder((7, 13), name="a"), te.placeholder((13, 24), name="b")
    k = te.reduce_axis((0, 13), "k")
    return te.create_prim_func([a, b, te.compute((7, 24), lambda i, j: te.sum(a[i, k] * b[k, j], axis=[k]), name="c")])


def transposed() -> tirx.PrimFunc:
    x = te.placeholder((5, 3, 16), name="x")
    return te.create_prim_func([x, te.compute((16, 5, 3), lambda i, j, k: x[j, k, i] + 1.0, name="y")])


def total() -> tirx.PrimFunc:
    x = te.placeholder((100,), name="x")
    k = te.reduce_axis((0, 100), "k")
    return te.create_prim_func([x, te.compute((), lambda: te.sum(x[k], axis=[k]), name="y")])


def two_outputs() -> tirx.PrimFunc:
    x = te.placeholder((4, 16), name="x")
    low = te.compute((4, 8), lambda i, j: x[i, j], name="low")
    high = te.compute((4, 8), lambda i, j: x[i, j + 8] + low[i, j], name="high")
    return te.create_prim_func([x, low, high])


@T.prim_func(s_tir=True)
def running_sum(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32")) -> None:
    for i in range(64):
        with T.sblock("scan"):
            at = T.axis.opaque(64, i)
            y[at] = x[at] + T.if_then_else(at > 0, y[at - 1], T.float32(0))


FUNCTIONS: list[tuple[Callable[[], tirx.PrimFunc], bool]] = [
    (softmax, True),
    (matmul, True),
    (transposed, True),
    (two_outputs, True),
    (total, False),
    (lambda: running_sum, False),
]


def run(func: tirx.PrimFunc, seed: int) -> list[np.ndarray]:
    """The function's buffers after a call, inputs random and outputs NaN."""
    rng = np.random.default_rng(seed)
    built = tvm.compile(func, target="llvm")
    shapes = [tuple(int(e) for e in p.ty.shape) for p in func.params]
    count = 1 if len(shapes) < 3 or shapes[-1] == (4, 8) else 2
    arrays = [
        rng.standard_normal(s).astype("float32") if i < count else np.full(s, np.nan, "float32")
        for i, s in enumerate(shapes)
    ]
    tensors = [tvm.runtime.tensor(a) for a in arrays]
    built(*tensors)
    return [t.numpy() for t in tensors]


@pytest.mark.parametrize(("make", "vectors"), FUNCTIONS)
def test_vectors_and_the_same_result(make: Callable[[], tirx.PrimFunc], vectors: bool) -> None:
    func = make()
    scheduled = default.schedule(func, TARGET.lanes_f32).mod["main"]
    for wanted, got in zip(run(func, 3), run(scheduled, 3), strict=True):
        assert not np.isnan(got).any()
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    text = assembly(scheduled, "evo_kernel_0", TARGET.tvm())
    if vectors:
        assert "T.vectorized" in scheduled.script() and "%ymm" in text


def test_a_costly_stage_that_two_others_read_is_computed_once() -> None:
    blocks = default.schedule(softmax(), 8).mod["main"].script()
    assert blocks.count("T.exp(") == 1
    assert 'T.sblock("e")' in blocks
