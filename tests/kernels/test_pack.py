"""Packed weights: every element is where the kernel looks for it, and zeros fill the rest."""

from __future__ import annotations

import numpy as np
import pytest

from evo_tvm.kernels.pack import Packing


def numbered(*shape: int) -> np.ndarray:
    """1, 2, 3, ... in float32."""
    return np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)


def packed(kind: str, shape: tuple[int, ...], data: np.ndarray) -> np.ndarray:
    result = Packing(kind, shape).apply(data)
    assert result.shape == shape and result.dtype == data.dtype and result.flags.c_contiguous
    assert np.count_nonzero(result) == data.size, "lost or doubled"
    return result


@pytest.mark.parametrize("ib", [1, 4])
@pytest.mark.parametrize(("chunk", "oc_tile"), [(1, 1), (2, 2), (1, 4)])
@pytest.mark.parametrize("kind", ["conv2d", "conv2d_by_depth"])
def test_conv2d(kind: str, ib: int, chunk: int, oc_tile: int) -> None:
    data = numbered(10, 6, 3, 2)
    tiles, chunks = -(-10 // (4 * oc_tile)), -(-6 // (ib * chunk))
    outer = (tiles, chunks) if kind == "conv2d" else (chunks, tiles)
    got = packed(kind, (*outer, chunk, 3, 2, ib, oc_tile, 4), data)
    for o, i, r, s in np.ndindex(data.shape):
        tile, panel = o // (4 * oc_tile), i // (ib * chunk)
        at = (tile, panel) if kind == "conv2d" else (panel, tile)
        assert got[(*at, i // ib % chunk, r, s, i % ib, o // 4 % oc_tile, o % 4)] == data[o, i, r, s]


def test_filters() -> None:
    data = numbered(12, 5, 3, 3)
    got = packed("filters", (3, 5, 3, 3, 4), data)
    for o, i, r, s in np.ndindex(data.shape):
        assert got[o // 4, i, r, s, o % 4] == data[o, i, r, s]


def test_depthwise() -> None:
    data = numbered(11, 1, 3, 2)
    got = packed("depthwise", (2, 3, 2, 8), data)
    for c, _, r, s in np.ndindex(data.shape):
        assert got[c // 8, r, s, c % 8] == data[c, 0, r, s]


def test_dense() -> None:
    data = numbered(5, 11)
    got = packed("dense", (2, 1, 5, 1, 8), data)
    for k, n in np.ndindex(data.shape):
        assert got[n // 8, 0, k, 0, n % 8] == data[k, n]


def test_dense_in_chunks_and_tiles_of_panels() -> None:
    data = numbered(6, 21)
    got = packed("dense", (2, 3, 2, 2, 8), data)
    for k, n in np.ndindex(data.shape):
        assert got[n // 16, k // 2, k % 2, n // 8 % 2, n % 8] == data[k, n]
    assert not got[1, :, :, 0, 5:].any() and not got[1, :, :, 1].any()


@pytest.mark.parametrize("shape", [(2, 11, 3, 2), (11, 3, 2), (11, 1, 1)])
def test_blocked(shape: tuple[int, ...]) -> None:
    data = numbered(*shape)
    full = data.reshape((1,) * (4 - data.ndim) + shape)
    n, _, h, w = full.shape
    got = packed("blocked", (n, 2, h, w, 8), data)
    for b, ch, i, j in np.ndindex(full.shape):
        assert got[b, ch // 8, i, j, ch % 8] == full[b, ch, i, j]


@pytest.mark.parametrize("dtype", ["int64", "bool", "float16"])
def test_plain_keeps_the_dtype(dtype: str) -> None:
    data = np.ones((2, 3), dtype).T
    got = packed("plain", (6,), data)
    np.testing.assert_array_equal(got, data.reshape(6))


def test_the_source_is_not_changed() -> None:
    data = numbered(3, 3)
    Packing("plain", (9,)).apply(data)[...] = 0
    Packing("dense", (1, 1, 3, 1, 4)).apply(data)[...] = 0
    assert data.all() or not np.shares_memory(Packing("dense", (1, 1, 3, 1, 4)).apply(data), data)
