from __future__ import annotations

import subprocess
from pathlib import Path

import evo_tvm.executor
from evo_tvm.executor.emit import emit_c
from evo_tvm.executor.link import SUPPORT_SOURCES
from evo_tvm.executor.peak import Peak
from evo_tvm.executor.program import Call, Copy, FillBorder, Pointer, Program
from evo_tvm.spec import TensorSpec

IN, OUT = [TensorSpec("x", (2, 3), "float32")], [TensorSpec("y", (2, 3), "int64"), TensorSpec("z", (4,), "bool")]
STEPS = (
    FillBorder(Pointer("arena", 64), 7, 2, 6, 5, 4, (1, 2, 1, 0)),
    Call("evo_kernel_0", (Pointer("input", 0, 0), Pointer("weights", 128), Pointer("arena", 64)), 0),
    Call("evo_kernel_0", (Pointer("arena", 64), Pointer("weights", 0), Pointer("output", 0, 1)), 1),
    Copy(Pointer("weights", 0), Pointer("output", 0, 0), 48),
)
PEAKS = (
    Peak("evo_peak_0", "float32", (64, 64, 1792), 10, b""),
    Peak("evo_peak_1", "int8", (96, 64, 1792), 40, b""),
)


def test_sizes_and_steps_in_order() -> None:
    text = emit_c(Program(STEPS, bytes(192), 256), "x86_64-linux-gnu", IN, OUT, 2)
    assert "evo_tensor_bytes[] = {24, 48, 4};" in text
    assert "evo_weights_bytes = 192, evo_prepared_bytes = 0;" in text
    assert "evo_arena_bytes = 256;" in text
    assert text.count("extern int32_t evo_kernel_0(void*, void*, void*);") == 1
    body = text[text.index("evo_model_main") :]
    places = [
        body.index(s) for s in ("fill_border(arena + 64, 7, 2, 6, 5, 4, 1, 2, 1, 0)", "ticks[1]", "ticks[2]", "memcpy(")
    ]
    assert places == sorted(places)
    assert text.count("static void fill_border") == 1


def test_no_helper_without_borders_and_no_empty_array() -> None:
    text = emit_c(Program((), b"", 64), "x86_64-linux-gnu", [], [], 0)
    assert "fill_border" not in text and "{0}" in text


def test_each_peak_has_its_function_and_its_memory() -> None:
    text = emit_c(Program((), b"", 64), "x86_64-linux-gnu", [], [], 0, PEAKS)
    _, first, second = text.split("extern int32_t evo_peak_")
    assert "evo_model_peak(void)" in first and "a[64]" in first and "return 10;" in first
    assert "evo_model_integer_peak(void)" in second and "a[96]" in second and "return 40;" in second
    assert "evo_model_integer_peak" not in emit_c(Program((), b"", 64), "x86_64-linux-gnu", [], [], 0, PEAKS[:1])


def test_it_compiles_without_warnings(tmp_path: Path) -> None:
    include = Path(evo_tvm.executor.__path__[0])
    assert (include / "abi.h").exists() and SUPPORT_SOURCES
    for name, program in (("full", Program(STEPS, bytes(192), 256)), ("empty", Program((), b"", 64))):
        source = tmp_path / f"{name}.c"
        source.write_text(emit_c(program, "x86_64-linux-gnu", IN, OUT, 2, PEAKS if name == "full" else ()))
        command = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{include}", str(source)]
        subprocess.run(command, check=True, capture_output=True)
