"""The peak kernel: its sums are right, and its loop is multiply-adds in registers alone."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import numpy as np
import pytest

from evo_tvm.executor.cache import Cache
from evo_tvm.executor.codegen import assembly, build_object
from evo_tvm.executor.emit import emit_c
from evo_tvm.executor.link import SUPPORT_SOURCES, link_library
from evo_tvm.executor.peak import build_peak, schedule_peak
from evo_tvm.executor.program import Program
from evo_tvm.runtime.tensors import address, aligned_empty
from evo_tvm.target import host, resolve


def loop(target_name: str, rows: int) -> list[str]:
    """The instructions of the innermost loop, without their operands."""
    target = resolve(target_name)
    func = schedule_peak(rows, target.lanes_f32, 4096).mod["main"]
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


def test_its_sums_are_right(tmp_path: Path) -> None:
    """Against numpy, exactly: all values are small integers."""
    rows, lanes, depth = 3, host().lanes_f32, 10
    build_object(schedule_peak(rows, lanes, depth).mod["main"], "peak", host().tvm(), str(tmp_path / "peak.o"))
    (tmp_path / "model.c").write_text(  # under a name that libraries export
        "int peak(void*, void*, void*);\nint evo_run(void* a, void* b, void* c) { return peak(a, b, c); }\n"
    )
    link_library([tmp_path / "peak.o"], [tmp_path / "model.c"], tmp_path / "peak.so", host().triple)
    a, b = (aligned_empty((lanes,), np.dtype(np.float32)) for _ in range(2))
    c = aligned_empty((rows, lanes), np.dtype(np.float32))
    a[:], b[:], c[:] = np.arange(lanes), np.arange(lanes)[::-1], np.nan
    run = ctypes.CDLL(str(tmp_path / "peak.so")).evo_run
    assert run(*(ctypes.c_void_p(address(array)) for array in (a, b, c))) == 0
    np.testing.assert_array_equal(c, np.tile(depth * a * b, (rows, 1)))


def test_a_library_measures_the_cpu(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    peak = build_peak(host(), cache)
    assert (peak.rows, peak.lanes) == (host().vector_registers - 4, host().lanes_f32)
    assert build_peak(host(), cache) == peak, "comes from the cache"
    (tmp_path / "peak.o").write_bytes(peak.code)
    (tmp_path / "model.c").write_text(emit_c(Program((), b"", 64), host().triple, [], [], 0, peak))
    sources = [tmp_path / "model.c", *SUPPORT_SOURCES]
    link_library([tmp_path / "peak.o"], sources, tmp_path / "model.so", host().triple)
    library = ctypes.CDLL(str(tmp_path / "model.so"))
    rates = (ctypes.c_double * 2)()
    assert library.evo_measure(None, ctypes.c_uint64(32 << 20), rates) == 0
    # From a slow board to four AVX-512 units at 6 GHz; and any memory that a core reads.
    assert 0.5 < rates[0] < 800 and 0.05 < rates[1] < 1000
