from __future__ import annotations

from pathlib import Path

import pytest
import tvm_ffi
from tvm import te, tirx

from evo_tvm.executor.codegen import assembly, build_object, lower
from evo_tvm.schedules import elementwise
from evo_tvm.target import resolve

TARGET = resolve("x86-64-v3")


def scaled(by: float, size: int = 64) -> tirx.PrimFunc:
    x = te.placeholder((size,), name="x")
    return te.create_prim_func([x, te.compute((size,), lambda i: x[i] * tirx.const(by, "float32"), name="output")])


def test_a_kernel_is_a_plain_c_function(tmp_path: Path) -> None:
    func = elementwise.schedule(scaled(2.0), 8).mod["main"]
    (lowered,) = lower(func, "evo_kernel_7", TARGET.tvm()).functions.values()
    assert len(lowered.params) == 2 and str(lowered.attrs["global_symbol"]) == "evo_kernel_7"
    build_object(func, "evo_kernel_7", TARGET.tvm(), str(tmp_path / "k.o"))
    assert b"evo_kernel_7" in (tmp_path / "k.o").read_bytes()


def test_it_uses_the_targets_vectors() -> None:
    text = assembly(elementwise.schedule(scaled(3.0), 8).mod["main"], "evo_kernel_0", TARGET.tvm())
    assert "%ymm" in text and "vmulps" in text and "%zmm" not in text


def test_the_functions_lowered_are_not_changed() -> None:
    func = elementwise.schedule(scaled(2.0), 8).mod["main"]
    before = tvm_ffi.structural_hash(func)
    lower(func, "evo_kernel_0", TARGET.tvm())
    assert tvm_ffi.structural_hash(func) == before


@pytest.mark.parametrize("other", [1.0000001, -1.0])
def test_kernels_that_differ_in_a_constant_are_not_equal(other: float) -> None:
    a, b, same = scaled(1.0), scaled(other), scaled(1.0)
    assert tvm_ffi.structural_equal(a, same, map_free_vars=True)
    assert not tvm_ffi.structural_equal(a, b, map_free_vars=True)


def test_kernels_that_differ_in_the_sign_of_zero_are_not_equal() -> None:
    assert not tvm_ffi.structural_equal(scaled(0.0), scaled(-0.0), map_free_vars=True)


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sigmoid", "erf"])
def test_no_call_of_libm_for_float32(name: str) -> None:
    x = te.placeholder((64,), name="x")
    func = te.create_prim_func([x, te.compute((64,), lambda i: getattr(tirx, name)(x[i]), name="output")])
    text = assembly(elementwise.schedule(func, 8).mod["main"], "evo_kernel_0", TARGET.tvm())
    assert f"{name}f" not in text
