"""Products of bytes and constant bytes against numpy, exactly: ragged rows, depths and columns, each register tile."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import te, tirx

from evo_tvm.kernels.dense import dense_dot
from evo_tvm.kernels.pack import Packing
from evo_tvm.schedules.dense import Config, schedule
from evo_tvm.target import resolve
from tests.kernels._bytes import TARGETS, random_bytes
from tests.kernels._run import Kernel


def check(m: int, k: int, n: int, tile: tuple[int, int], target: str = "host", threads: int = 1) -> None:
    lanes = resolve(target).lanes_f32
    x, w = random_bytes(3, (m, k), (k, n))
    panels, steps = -(-n // lanes), -(-k // 4)
    packed = Packing("dense", (-(-panels // tile[1]), 1, steps, tile[1], lanes, 4)).apply(w)
    p0, p1 = te.placeholder(x.shape, "uint8", name="p0"), te.placeholder(packed.shape, "int8", name="p1")
    product = dense_dot(p0, p1, panels)
    output = te.compute(
        (m, n), lambda i, j: tirx.reinterpret("float32", product[i, j // lanes, j % lanes]), name="output"
    )
    func = te.create_prim_func([p0, p1, output])
    sch = schedule(func, Config(*tile, steps), lanes)
    got = Kernel(sch.mod["main"], resolve(target), threads)(x, packed)
    assert np.array_equal(got.view(np.int32), x.astype(np.int32) @ w.astype(np.int32))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("m", "k", "n", "tile"),
    [(1, 64, 250, (1, 8)), (1, 7, 10, (1, 1)), (7, 33, 100, (3, 2)), (50, 100, 64, (6, 4)), (29, 513, 33, (14, 2))],
)
def test_exact(m: int, k: int, n: int, tile: tuple[int, int], target: str) -> None:
    check(m, k, n, tile, target)


@pytest.mark.parametrize(("m", "n"), [(197, 250), (1000, 33), (300, 10)])
def test_on_threads(m: int, n: int) -> None:
    """Shared out by panels, and by rows where there are few panels."""
    check(m, 66, n, (14, 2), threads=3)


def test_depths_are_packed_in_fours() -> None:
    """Zeros stand behind the last of seven rows, and for columns that only fill a panel."""
    weight = np.arange(1, 22, dtype=np.int8).reshape(7, 3)
    packed = Packing("dense", (1, 1, 2, 1, 4, 4)).apply(weight)
    assert packed[0, 0, 0, 0].tolist() == [[1, 4, 7, 10], [2, 5, 8, 11], [3, 6, 9, 12], [0, 0, 0, 0]]
    assert packed[0, 0, 1, 0].tolist() == [[13, 16, 19, 0], [14, 17, 20, 0], [15, 18, 21, 0], [0, 0, 0, 0]]
