"""The peak kernels: their sums are right, and their loops are multiply-adds, of float32 in registers alone."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from tvm.s_tir import Schedule
from tvm.tirx import PrimFunc

from evo_tvm.executor.cache import Cache
from evo_tvm.executor.codegen import assembly, build_object
from evo_tvm.executor.emit import emit_c
from evo_tvm.executor.link import SUPPORT_SOURCES, link_library
from evo_tvm.executor.peak import Peak, build_peak, schedule_integer_peak, schedule_peak
from evo_tvm.executor.program import Program
from evo_tvm.runtime.tensors import address, aligned_empty
from evo_tvm.target import host, resolve


def loop(target_name: str, rows: int, schedule: Callable[[int, int, int], Schedule] = schedule_peak) -> list[str]:
    """The instructions of the innermost loop."""
    target = resolve(target_name)
    func = schedule(rows, target.lanes_f32, 4096).mod["main"]
    lines = [line.strip() for line in assembly(func, "peak", target.tvm()).splitlines()]
    end = next(i for i, line in enumerate(lines) if line.startswith(("jne", "b.ne")))
    label = lines[end].split()[-1]
    begin = lines.index(next(line for line in lines[:end] if line.startswith(f"{label}:")))
    return [line for line in lines[begin + 1 : end] if re.match(r"[a-z]", line)]


@pytest.mark.parametrize(
    ("target", "rows", "instruction", "register"),
    [
        ("x86-64-v3", 12, "vfmadd", "%ymm"),
        ("x86-64-v4", 28, "vfmadd", "%zmm"),
        ("aarch64-linux-gnu", 28, "fmla", ".4s"),
    ],
)
def test_the_loop_is_multiply_adds_in_registers(target: str, rows: int, instruction: str, register: str) -> None:
    lines = loop(target, rows)
    sums = [line for line in lines if line.startswith(instruction)]
    assert len(sums) % rows == 0 and len(lines) - len(sums) <= 2, lines
    assert all(line.count(register) == 3 and "(" not in line for line in sums)


@pytest.mark.parametrize(
    ("target", "rows", "product", "products", "others"),
    [
        ("cascadelake", 28, "vpdpbusd", 28, 14 + 2),  # all others but the end of the loop: its operands are read
        ("x86-64-v4", 28, "vpmaddwd", 56, None),
        ("x86-64-v3", 12, "vpmaddwd", 24, None),
        ("aarch64-linux-gnu", 28, "smlal", 28 * 4, None),
    ],
)
def test_no_integer_product_is_moved_out_of_the_loop(
    target: str, rows: int, product: str, products: int, others: int | None
) -> None:
    lines = loop(target, rows, schedule_integer_peak)
    sums = [line for line in lines if re.match(product, line)]
    assert len(sums) >= products and len(sums) % products == 0, lines
    assert others is None or len(lines) <= (products + others) * (len(sums) // products) + 4, lines


def library_of(func: PrimFunc, folder: Path) -> ctypes.CDLL:
    """The kernel as `evo_run`, a name that libraries export."""
    build_object(func, "peak", host().tvm(), str(folder / "peak.o"))
    (folder / "model.c").write_text(
        "int peak(void*, void*, void*);\nint evo_run(void* a, void* b, void* c) { return peak(a, b, c); }\n"
    )
    link_library([folder / "peak.o"], [folder / "model.c"], folder / "peak.so", host().triple)
    return ctypes.CDLL(str(folder / "peak.so"))


def test_integer_sums_are_right(tmp_path: Path) -> None:
    """Against numpy, with bytes as large as they get."""
    rows, lanes, depth = 6, host().lanes_f32, 32
    library = library_of(schedule_integer_peak(rows, lanes, depth).mod["main"], tmp_path)
    random = np.random.default_rng(0)
    a, b = aligned_empty((16, rows // 2, 4), np.dtype(np.uint8)), aligned_empty((16, 2, lanes, 4), np.dtype(np.int8))
    c = aligned_empty((rows // 2, 2, lanes), np.dtype(np.int32))
    a[:], b[:] = random.integers(0, 256, a.shape), random.integers(-128, 128, b.shape)
    a[0], b[0], c[:] = 255, -128, -1
    assert library.evo_run(*(ctypes.c_void_p(address(array)) for array in (a, b, c))) == 0
    expected = np.einsum("kiq,kjvq->ijv", a.astype(np.int64), b.astype(np.int64)) * (depth // 16)
    np.testing.assert_array_equal(c, expected)


def test_its_sums_are_right(tmp_path: Path) -> None:
    """Against numpy, exactly: all values are small integers."""
    rows, lanes, depth = 3, host().lanes_f32, 10
    library = library_of(schedule_peak(rows, lanes, depth).mod["main"], tmp_path)
    a, b = (aligned_empty((lanes,), np.dtype(np.float32)) for _ in range(2))
    c = aligned_empty((rows, lanes), np.dtype(np.float32))
    a[:], b[:], c[:] = np.arange(lanes), np.arange(lanes)[::-1], np.nan
    assert library.evo_run(*(ctypes.c_void_p(address(array)) for array in (a, b, c))) == 0
    np.testing.assert_array_equal(c, np.tile(depth * a * b, (rows, 1)))


def test_a_library_measures_the_cpu(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    peaks = [build_peak(host(), cache, dtype) for dtype in ("float32", "int8")]
    sums = (host().vector_registers - 4) * host().lanes_f32
    assert [peak.sizes[2] for peak in peaks] == [4 * sums] * 2
    assert [peak.operations for peak in peaks] == [2 * 4096 * sums, 2 * 4 * 4096 * sums]
    assert build_peak(host(), cache) == peaks[0] != peaks[1] == build_peak(host(), cache, "int8"), "from the cache"
    both = measured(peaks, tmp_path)
    # From a slow board to four AVX-512 units at 6 GHz; and any memory that a core reads.
    assert 0.5 < both[0] < 800 and 0.5 < both[1] < 3200 and 0.05 < both[2] < 1000
    if any(host().has(feature) for feature in ("avx512vnni", "avxvnni")):
        assert both[1] > 2 * both[0]
    assert measured(peaks[:1], tmp_path)[1] == 0, "not measured where there is no kernel for it"


def measured(peaks: Sequence[Peak], folder: Path) -> list[float]:
    """What a library with these kernels alone measures."""
    folder = folder / str(len(peaks))
    folder.mkdir()
    objects = [folder / f"{peak.dtype}.o" for peak in peaks]
    for peak, file in zip(peaks, objects, strict=True):
        file.write_bytes(peak.code)
    (folder / "model.c").write_text(emit_c(Program((), b"", 64), host().triple, [], [], 0, peaks))
    link_library(objects, [folder / "model.c", *SUPPORT_SOURCES], folder / "model.so", host().triple)
    library = ctypes.CDLL(str(folder / "model.so"))
    rates = (ctypes.c_double * 3)()
    assert library.evo_measure(None, ctypes.c_uint64(32 << 20), rates) == 0
    return list(rates)
