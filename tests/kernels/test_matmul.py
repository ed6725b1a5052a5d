"""Dense layers and products of activations against numpy: ragged rows, depths and columns, long sums, batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te, tirx

from evo_tvm.kernels.dense import dense
from evo_tvm.kernels.matmul import depth_chunk, matmul
from evo_tvm.kernels.pack import Packing
from evo_tvm.schedules.dense import Config, schedule
from evo_tvm.target import host
from tests.kernels._run import Kernel, relative_error

LANES = host().lanes_f32
TOLERANCE = 1e-5


def output(stage: te.Tensor, width: int) -> te.Tensor:
    """max(x, 0) of a product whose columns lie in panels."""
    shape = (*stage.shape[:-2], width)
    zero = tirx.const(0, "float32")
    return te.compute(
        shape, lambda *at: tirx.max(stage[(*at[:-1], at[-1] // LANES, at[-1] % LANES)], zero), name="output"
    )


def check_dense(m: int, k: int, n: int, config: Config, threads: int = 1) -> None:
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n)).astype(np.float32)
    panels, chunk = -(-n // LANES), config.depth_chunk or k
    packed = Packing("dense", (-(-panels // config.panel_tile), k // chunk, chunk, config.panel_tile, LANES)).apply(w)
    p0, p1 = te.placeholder(x.shape, name="p0"), te.placeholder(packed.shape, name="p1")
    func = te.create_prim_func([p0, p1, output(dense(p0, p1, panels), n)])
    got = Kernel(schedule(func, config, LANES).mod["main"], host(), threads)(x, packed)
    assert relative_error(got, np.maximum(x.astype(np.float64) @ w, 0)) < TOLERANCE


def check_matmul(left: tuple[int, ...], right: tuple[int, ...], config: Config, threads: int = 1) -> None:
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal(left).astype(np.float32), rng.standard_normal(right).astype(np.float32)
    p0, p1 = te.placeholder(left, name="p0"), te.placeholder(right, name="p1")
    chunk = config.depth_chunk or left[-1]
    func = te.create_prim_func([p0, p1, output(matmul(p0, p1, chunk, config.panel_tile, LANES), right[-1])])
    got = Kernel(schedule(func, config, LANES).mod["main"], host(), threads)(a, b)
    assert relative_error(got, np.maximum(a.astype(np.float64) @ b, 0)) < TOLERANCE


@pytest.mark.parametrize(
    ("m", "k", "n", "config"),
    [
        (1, 192, 1000, Config(1, 8)),
        (1, 1024, 33, Config(1, 3, 256)),
        (1, 7, 10, Config(1, 1)),
        (7, 33, 10, Config(7, 1)),
        (7, 1, 1, Config(4, 1)),
        (50, 100, 64, Config(6, 4)),
        (197, 192, 192, Config(14, 2)),
        (197, 768, 33, Config(12, 2, 192)),
        (197, 33, 197, Config(14, 2)),
        (1000, 16, 10, Config(14, 1)),
    ],
)
def test_dense(m: int, k: int, n: int, config: Config) -> None:
    check_dense(m, k, n, config)


@pytest.mark.parametrize(("m", "n"), [(197, 250), (1000, 33), (300, 10)])
def test_dense_on_threads(m: int, n: int) -> None:
    """Shared out by panels, and by rows where there are few panels."""
    check_dense(m, 65, n, Config(14, 2), threads=3)


@pytest.mark.parametrize(
    ("left", "right", "config"),
    [
        ((197, 64), (64, 197), Config(14, 2)),
        ((3, 1, 20), (3, 20, 33), Config(1, 3)),
        ((3, 7, 33), (3, 33, 10), Config(7, 1)),
        ((2, 3, 50, 16), (2, 3, 16, 50), Config(12, 2)),
        ((2, 3, 17, 24), (1, 3, 24, 40), Config(6, 4)),
        ((1, 1, 17, 24), (2, 1, 24, 5), Config(14, 1)),
        ((2, 9, 256), (2, 256, 70), Config(9, 2, 64)),
    ],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_matmul(left: tuple[int, ...], right: tuple[int, ...], config: Config, threads: int) -> None:
    check_matmul(left, right, config, threads)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 70), st.sampled_from([(1, 8), (6, 4), (14, 2), (9, 1)]))
def test_any_sizes(m: int, k: int, n: int, tile: tuple[int, int]) -> None:
    check_dense(m, k, n, Config(*tile))
    check_matmul((2, m, k), (2, k, n), Config(*tile))


def test_depth_chunk() -> None:
    """Long sums are cut up, where the depth has a divisor to cut at."""
    assert [depth_chunk(k) for k in (1, 192, 768, 9216, 4096)] == [1, 192, 768, 576, 512]
    assert depth_chunk(1021) == 1021  # a prime
