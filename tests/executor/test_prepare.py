"""Winograd weights made at load, in C: the numbers of `transform_weights`, wherever a kernel wants them."""

from __future__ import annotations

import ctypes
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from evo_tvm.executor.emit import emit_c
from evo_tvm.executor.link import SUPPORT_SOURCES, link_library
from evo_tvm.executor.program import Pointer, Prepare, Program
from evo_tvm.kernels import pack
from evo_tvm.kernels.pack import Packing, Preparation
from evo_tvm.kernels.winograd import F4, cook_toom, transform_weights, transformed_shape
from evo_tvm.runtime.tensors import address, aligned_bytes

TRIPLE = f"{os.uname().machine}-linux-gnu"
F2 = cook_toom(2, [Fraction(p) for p in (0, 1, -1)])
F6 = cook_toom(6, [Fraction(p) for p in ("0", "1", "-1", "2", "-2", "1/2", "-1/2")])


def prepare(folder: Path, cases: list[tuple[np.ndarray, Preparation, int]], threads: int, code: int = 0) -> list[bytes]:
    """What `evo_prepare` makes of (stored weights, how, bytes of the result)."""
    steps, weights, size = [], b"", 0
    for stored, how, size_bytes in cases:
        steps.append(Prepare(Pointer("weights", len(weights)), Pointer("prepared", size), how))
        weights += stored.tobytes() + bytes(-stored.nbytes % 64)
        size += size_bytes + -size_bytes % 64
    source, out = folder / "model.c", folder / "model.so"
    source.write_text(emit_c(Program((), weights, 64, tuple(steps), size), TRIPLE, [], [], 0))
    link_library([], [source, *SUPPORT_SOURCES], out, TRIPLE)
    lib = ctypes.CDLL(str(out))
    lib.evo_pool_create.restype = ctypes.c_void_p
    lib.evo_pool_destroy.argtypes = [ctypes.c_void_p]
    assert ctypes.c_uint64.in_dll(lib, "evo_prepared_bytes").value == size
    memory, prepared = aligned_bytes(len(weights)), aligned_bytes(size)
    memory[...] = np.frombuffer(weights, np.uint8)
    prepared[...] = 0xFF
    pool = lib.evo_pool_create(threads)
    pointers = (ctypes.c_void_p(p) for p in (pool, address(memory), address(prepared)))
    assert lib.evo_prepare(*pointers) == code
    lib.evo_pool_destroy(pool)
    return [prepared[s.target.offset :][:n].tobytes() for s, (_, _, n) in zip(steps, cases, strict=True)]


def ulps(got: np.ndarray, wanted: np.ndarray) -> int:
    """The largest distance in units of the last place."""
    a, b = (np.where((i := x.view(np.int32).astype(np.int64)) < 0, -(2**31) - i, i) for x in (got, wanted))
    return int(np.abs(a - b).max())


@pytest.mark.parametrize("threads", [1, 3])
def test_numbers(tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Odd channels, one block and many, blocks of 4 to 32, tiles of 4x4 to 8x8; magnitudes far apart."""
    monkeypatch.setattr(pack, "TRANSFORMS", {"winograd2": F2, "winograd4": F4, "winograd6": F6})
    rng = np.random.default_rng(0)
    cases, wanted = [], []
    for kind, transform in pack.TRANSFORMS.items():
        for oc, ic, lanes in ((4, 1, 4), (12, 7, 4), (8, 3, 8), (48, 29, 16), (64, 33, 32), (40, 5, 20)):
            weight = (rng.standard_normal((oc, ic, 3, 3)) * 10.0 ** rng.integers(-6, 6, (oc, 1, 1, 1))).astype(
                "float32"
            )
            packing = Packing(kind, transformed_shape(oc, ic, transform, lanes))
            assert packing.preparation is not None
            wanted.append(transform_weights(weight, transform, lanes))
            cases.append((packing.stored.apply(weight), packing.preparation, wanted[-1].nbytes))
            assert cases[-1][0].nbytes == weight.nbytes
    for got, want in zip(prepare(tmp_path, cases, threads), wanted, strict=True):
        assert ulps(np.frombuffer(got, np.float32).reshape(want.shape), want) <= 1


@pytest.mark.parametrize("axes", ["eoiv", "oeiv", "oiev", "ieov"])
def test_any_order_of_axes(tmp_path: Path, axes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.random.default_rng(1).standard_normal((32, 21, 3, 3)).astype(np.float32)
    wanted = np.einsum(f"{pack.WEIGHT_AXES}->{axes}", transform_weights(weight, F4, 8))
    monkeypatch.setattr(pack, "WEIGHT_AXES", axes)
    packing = Packing("winograd4", wanted.shape)
    assert packing.preparation
    (got,) = prepare(tmp_path, [(packing.stored.apply(weight), packing.preparation, wanted.nbytes)], 2)
    assert ulps(np.frombuffer(got, np.float32), np.ascontiguousarray(wanted).reshape(-1)) <= 1


def test_a_tile_beyond_the_buffer_is_refused(tmp_path: Path) -> None:
    matrix = ((1.0, 0.0, 0.0),) * 9
    how = Preparation(matrix, 1, 1, 4, (4, 4 * 81, 4))
    prepare(tmp_path, [(np.zeros(36, np.float32), how, 4 * 81 * 4)], 1, code=-1002)


def test_only_what_grows_is_prepared() -> None:
    for kind, shape in (("conv2d", (2, 1, 3, 3, 4, 8)), ("plain", (3,)), ("dense", (1, 1, 4, 1, 8))):
        packing = Packing(kind, shape)
        assert packing.preparation is None and packing.stored is packing


def test_the_matrix_is_written_without_rounding(tmp_path: Path) -> None:
    """The filter that is 1 in one corner gives an outer product of two columns of G, rounded once."""
    weight = np.zeros((4, 1, 3, 3), np.float32)
    weight[0, 0, 2, 0] = 1
    packing = Packing("winograd4", transformed_shape(4, 1, F4, 4))
    assert packing.preparation
    (got,) = prepare(tmp_path, [(packing.stored.apply(weight), packing.preparation, 36 * 4 * 4)], 1)
    g = np.array(F4.g)
    wanted = np.outer(g[:, 2], g[:, 0]).astype(np.float32)
    np.testing.assert_array_equal(np.frombuffer(got, np.float32).reshape(36, 4)[:, 0].reshape(6, 6), wanted)
