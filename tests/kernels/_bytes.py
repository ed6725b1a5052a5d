"""What the tests of kernels of bytes share: the targets that they run on, operands, and sums compared exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te, tirx
from tvm.s_tir import Schedule

from evo_tvm.target import resolve
from tests.kernels._convolution import Convolution, Test
from tests.kernels._run import Kernel, blocked, plain

#: A target for each way to multiply bytes; this machine's is the one with VNNI, where it has that.
TARGETS = [
    "host",
    pytest.param("x86-64-v4", marks=pytest.mark.isa("avx512f", "avx512vl", "avx512bw", "avx512dq")),
    pytest.param("x86_64-linux-gnu+avx2+fma", marks=pytest.mark.isa("avx2", "fma")),
    pytest.param("x86_64-linux-gnu", marks=pytest.mark.isa("sse3")),
]


def on_all_targets(cases: st.SearchStrategy[Convolution], examples: int = 4) -> Callable[[Test], Test]:
    """Runs a test of `target` and `case` on each target, and on what is drawn."""

    def decorate(test: Test) -> Test:
        drawn = settings(max_examples=examples, deadline=None, derandomize=True, database=None)(given(case=cases)(test))
        return pytest.mark.parametrize("target", TARGETS)(drawn)

    return decorate


def random_bytes(seed: int, data: Sequence[int], weight: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """uint8 and int8 over their whole ranges, the bounds more often than by chance."""
    rng = np.random.default_rng(seed)
    x, w = rng.integers(0, 256, data, np.uint8), rng.integers(-128, 128, weight, np.int8)
    x[rng.random(x.shape) < 0.1] = 255
    w[rng.random(w.shape) < 0.1] = -128
    return x, w


def around(data: np.ndarray, padding: tuple[int, int, int, int], zero: int) -> np.ndarray:
    """NCHW inside a border (top, left, bottom, right) of `zero`."""
    top, left, bottom, right = padding
    return np.pad(data, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=zero)


def in_blocks(data: np.ndarray, block: int) -> np.ndarray:
    """NCHW -> (N, C/b, H, W, b), where idle lanes are 255: they must not matter."""
    idle = np.full((data.shape[0], -data.shape[1] % block, *data.shape[2:]), 255, data.dtype)
    return blocked(np.concatenate([data, idle], axis=1), block)


def assert_sums(
    target: str,
    arrays: Sequence[np.ndarray],
    stage: Callable[..., te.Tensor],
    schedule: Callable[[tirx.PrimFunc], Schedule],
    wanted: np.ndarray,
    threads: int = 1,
) -> None:
    """The kernel of `stage` on `arrays`, data and weights as they lie in memory, gives exactly `wanted` (NCHW)."""
    operands = [te.placeholder(a.shape, str(a.dtype), name=f"p{i}") for i, a in enumerate(arrays)]
    func = te.create_prim_func([*operands, bits(stage(*operands))])
    got = Kernel(schedule(func).mod["main"], resolve(target), threads)(*arrays)
    assert np.array_equal(plain(got.view(np.int32), wanted.shape[1]), wanted)


def bits(stage: te.Tensor) -> te.Tensor:
    """The stage "output" that ends every kernel: here int32 as float32 of the same bits."""
    shape = tuple(int(e) for e in stage.shape)
    return te.compute(shape, lambda *i: tirx.reinterpret("float32", stage[i]), name="output")
