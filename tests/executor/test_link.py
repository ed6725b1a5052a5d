"""Linking with each kind of compiler, and what is said where there is none."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evo_tvm.errors import CompileError
from evo_tvm.executor import link
from evo_tvm.executor.link import EXPORTS, SUPPORT_SOURCES, link_library, link_program
from evo_tvm.programs import find_zig

MODEL_C = """
#include <math.h>
#include "abi.h"
const char* const evo_target = "hand-written";
const int32_t evo_num_inputs = 1, evo_num_outputs = 1, evo_num_kernels = 1;
const uint64_t evo_tensor_bytes[] = {4, 4}, evo_weights_bytes = 0, evo_prepared_bytes = 0, evo_arena_bytes = 0;
int32_t not_exported(void) { return 3; }
int32_t evo_model_prepare(const uint8_t* weights, uint8_t* prepared) { (void)weights, (void)prepared; return 0; }
int32_t evo_model_main(void* const* in, void* const* out, const uint8_t* weights, const uint8_t* prepared,
                       uint8_t* arena, uint64_t* ticks) {
  (void)weights; (void)prepared; (void)arena; (void)ticks;
  *(float*)out[0] = erff(*(const float*)in[0]);
  return 0;
}
"""
HOST = f"{os.uname().machine}-linux-gnu"
needs_zig = pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="the ziglang package is missing")
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.c"
    path.write_text(MODEL_C)
    return path


def _only_zig(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)


def _nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _only_zig(monkeypatch)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)


def _check(library: Path) -> None:
    lib = ctypes.CDLL(str(library))
    for name in EXPORTS:
        assert getattr(lib, name)
    for hidden in ("not_exported", "evo_model_main", "TVMBackendParallelLaunch", "__TVMBackendParallelLaunch"):
        with pytest.raises(AttributeError):
            getattr(lib, hidden)
    x, y = ctypes.c_float(0.5), ctypes.c_float()
    pointers = [(ctypes.c_void_p * 1)(ctypes.addressof(value)) for value in (x, y)]
    assert lib.evo_run(None, *pointers, None, None, None, None) == 0
    assert y.value == pytest.approx(0.5204999, abs=1e-6)


@needs_cc
def test_with_the_machines_compiler(source: Path, tmp_path: Path) -> None:
    link_library([], [source, *SUPPORT_SOURCES], tmp_path / "m.so", HOST)
    _check(tmp_path / "m.so")


@needs_zig
def test_with_zig_alone(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _only_zig(monkeypatch)
    link_library([], [source, *SUPPORT_SOURCES], tmp_path / "m.so", HOST)
    _check(tmp_path / "m.so")


@needs_cc
@needs_zig
def test_a_compiler_that_fails_gives_way_to_zig(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: "/bin/false")
    link_library([], [source, *SUPPORT_SOURCES], tmp_path / "m.so", HOST)
    _check(tmp_path / "m.so")


@needs_zig
def test_objects_of_another_compiler_are_linked(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zig = find_zig()
    assert zig
    kernel = tmp_path / "model.o"
    flags = ["-target", HOST, "-O2", "-fPIC", f"-I{SUPPORT_SOURCES[0].parent}"]
    subprocess.run([zig, "cc", *flags, "-c", str(source), "-o", str(kernel)], check=True)
    link_library([kernel], SUPPORT_SOURCES, tmp_path / "m.so", HOST)
    _check(tmp_path / "m.so")


#: Triple, its number in ELF, and the Debian package that compiles for it.
MACHINES = [
    ("x86_64-linux-gnu", 62, "g++-x86-64-linux-gnu"),
    ("aarch64-linux-gnu", 183, "g++-aarch64-linux-gnu"),
    ("riscv64-linux-gnu", 243, "g++-riscv64-linux-gnu"),
    ("armv7a-linux-gnueabihf", 40, "g++-arm-linux-gnueabihf"),
]


def _machine_of(path: Path) -> int:
    header = path.read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    return int.from_bytes(header[18:20], "little")


@needs_zig
@pytest.mark.parametrize(("triple", "machine", "package"), MACHINES)
def test_for_another_machine_with_zig(
    source: Path, tmp_path: Path, triple: str, machine: int, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _only_zig(monkeypatch)
    link_library([], [source, *SUPPORT_SOURCES], tmp_path / "m.so", triple)
    assert _machine_of(tmp_path / "m.so") == machine


@pytest.mark.parametrize(("triple", "machine", "package"), MACHINES)
def test_for_another_machine_with_its_own_compiler(
    source: Path, tmp_path: Path, triple: str, machine: int, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    if not link._tools(*link._arch_and_abi(triple)):
        pytest.skip(f"no compiler for {triple}: apt install {package}")
    link_library([], [source, *SUPPORT_SOURCES], tmp_path / "m.so", triple)
    assert _machine_of(tmp_path / "m.so") == machine


PROGRAM_C = """
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
int main(int count, char** arguments) {
  (void)arguments;
  return dlopen("none.so", RTLD_NOW) != NULL || printf("%.3f", sqrt(count + 1.0)) < 0;
}
"""


@needs_cc
def test_a_program(tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text(PROGRAM_C)
    link_program([tmp_path / "main.c"], tmp_path / "main", HOST)
    assert subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout == "1.414"


@needs_zig
@pytest.mark.slow  # zig builds a C library first
@pytest.mark.parametrize(("triple", "machine", "package"), MACHINES)
def test_a_program_with_zig(
    tmp_path: Path, triple: str, machine: int, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _only_zig(monkeypatch)
    (tmp_path / "main.c").write_text(PROGRAM_C)
    link_program([tmp_path / "main.c"], tmp_path / "main", triple)
    assert _machine_of(tmp_path / "main") == machine


@needs_zig
@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "riscv64"])
def test_no_warning_from_zig(arch: str, tmp_path: Path) -> None:
    zig = find_zig()
    assert zig
    for source in SUPPORT_SOURCES:
        flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-c"]
        command = [zig, "cc", "-target", f"{arch}-linux-gnu", *flags, str(source), "-o", str(tmp_path / "x.o")]
        subprocess.run(command, check=True)


@needs_cc
def test_no_warning_from_the_machines_compiler(tmp_path: Path) -> None:
    for source in SUPPORT_SOURCES:
        flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-c"]
        subprocess.run(["cc", *flags, str(source), "-o", str(tmp_path / "x.o")], check=True)


@pytest.mark.parametrize(
    ("triple", "command"),
    [
        *(
            (triple, f'apt install {package}  or, without root: pip install "evo_tvm[zig]"')
            for triple, _, package in MACHINES
        ),
        ("aarch64-linux-musl", 'pip install "evo_tvm[zig]"'),
    ],
)
def test_no_compiler(source: Path, tmp_path: Path, triple: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _nothing(monkeypatch)
    monkeypatch.setattr("platform.machine", lambda: "other")
    with pytest.raises(CompileError) as error:
        link_library([], [source], tmp_path / "m.so", triple)
    assert str(error.value) == f"no C compiler for {triple} to link m.so with\nRun: {command}"


def test_no_compiler_for_this_machine(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _nothing(monkeypatch)
    with pytest.raises(CompileError, match=r'Run: apt install g\+\+  or, without root: pip install "evo_tvm\[zig]"$'):
        link_library([], [source], tmp_path / "m.so", HOST)


def test_a_source_that_does_not_compile(tmp_path: Path) -> None:
    (tmp_path / "bad.c").write_text("int f(void) { return nonsense; }\n")
    with pytest.raises(CompileError, match=r"(?s)^m\.so: .* failed with status 1:.*nonsense"):
        link_library([], [tmp_path / "bad.c"], tmp_path / "m.so", HOST)
    assert not (tmp_path / "m.so").exists()


@needs_cc
def test_a_symbol_that_nobody_defines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    (tmp_path / "bad.c").write_text("int nobody(void);\nint evo_run(void) { return nobody(); }\n")
    with pytest.raises(CompileError, match="nobody"):
        link_library([], [tmp_path / "bad.c"], tmp_path / "m.so", HOST)


def test_python_m_ziglang_is_what_is_called() -> None:
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("the ziglang package is missing")
    zig = find_zig()
    assert zig is not None
    ours = subprocess.run([zig, "version"], capture_output=True, text=True, check=True).stdout
    theirs = subprocess.run([sys.executable, "-m", "ziglang", "version"], capture_output=True, text=True, check=True)
    assert ours == theirs.stdout
