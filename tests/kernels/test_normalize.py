"""Softmax and layer norm against numpy: rows shorter than a vector, rows that end within one, large values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import te

from evo_tvm.kernels.normalize import layer_norm, softmax
from evo_tvm.schedules import normalize
from evo_tvm.target import host
from tests.kernels._run import Kernel

LANES = host().lanes_f32
SHAPES = [(1,), (10,), (7, 1), (5, 3), (3, 4, 16), (2, 3, 17), (6, 31), (3, 197), (4, 1000), (2, 5, 2, 33)]


def run(kind: Any, *operands: np.ndarray, threads: int = 1, **attrs: Any) -> np.ndarray:
    tensors = [te.placeholder(o.shape, name=f"p{i}") for i, o in enumerate(operands)]
    normal = kind(*tensors, lanes=LANES, **attrs)
    out = te.compute(normal.shape, lambda *at: normal[at] + normal[at], name="output")
    func = te.create_prim_func([*tensors, out])
    return Kernel(normalize.schedule(func, LANES).mod["main"], host(), threads)(*operands)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_softmax(shape: tuple[int, ...], scale: float) -> None:
    x = (np.random.default_rng(5).standard_normal(shape) * scale).astype(np.float32)
    power = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    assert np.abs(run(softmax, x) - 2 * power / power.sum(-1, keepdims=True)).max() < 1e-6


def test_softmax_of_masked_rows() -> None:
    x = np.full((3, 37), -np.inf, np.float32)
    x[:, 35] = 2.0
    x[1, 0] = 2.0
    got = run(softmax, x)
    assert got[0, 35] == 2.0 and got[1, 0] == got[1, 35] == 1.0 and np.count_nonzero(got) == 4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_layer_norm(shape: tuple[int, ...], mean: float) -> None:
    rng = np.random.default_rng(6)
    x, gamma, beta = (rng.standard_normal(s).astype(np.float32) for s in (shape, shape[-1:], shape[-1:]))
    x = (x + mean).astype(np.float32)
    wide = x.astype(np.float64)
    wanted = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5) * gamma + beta
    tolerance = 2e-6 if mean == 0 else 2e-4  # the mean of values near 100 is known to 1e-5
    assert np.abs(run(layer_norm, x, gamma, beta, epsilon=1e-5) - 2 * wanted).max() < tolerance * 10


def test_rows_on_threads() -> None:
    x = np.random.default_rng(7).standard_normal((500, 150)).astype(np.float32)
    assert np.array_equal(run(softmax, x, threads=3), run(softmax, x))
