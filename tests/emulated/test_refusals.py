"""What an emulated board says to a model that it cannot run, and to what it is asked about itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import evo_tvm
from evo_tvm.runtime.vector_length import READ_VLENB
from evo_tvm.target import resolve
from tests.emulated.boards import A72, A76, BOARDS, RV128, RV256, U74, Board, evo_run


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_board_knows_its_own_target(board: Board, folder: Path) -> None:
    done = board.run(evo_run(board, folder), "--cpu")
    assert done.returncode == 0, done.stderr
    target = resolve(done.stdout.strip())  # as --target takes it
    expected = resolve(board.target)
    assert target.triple == expected.triple
    assert (target.vector_bits, target.dot_instruction) == (expected.vector_bits, expected.dot_instruction)


@pytest.mark.parametrize(
    ("target", "board", "text"),
    [
        ("cortex-a72+dotprod", A72, "compiled for cortex-a72+dotprod, and this CPU lacks dotprod; "),
        ("cortex-a76+i8mm", A76, "compiled for cortex-a76+i8mm, and this CPU lacks i8mm; "),
        ("rv64gcv", U74, "compiled for rv64gcv, and this CPU lacks v, vectors of exactly 128 bits; "),
        ("rv64gcv+zvl256b", RV128, "compiled for rv64gcv+zvl256b, and this CPU lacks zvl256b, vectors of exactly 256 "),
        ("rv64gcv", RV256, "compiled for rv64gcv, and this CPU lacks vectors of exactly 128 bits; "),
        ("cortex-a72", RV256, "compiled for aarch64 (cortex-a72), and this evo-run is for riscv64; "),
        ("x86-64-v2", A76, "compiled for x86_64 (x86-64-v2), and this evo-run is for aarch64; "),
    ],
)
def test_a_model_for_another_cpu(target: str, board: Board, text: str, small_onnx: Path, folder: Path) -> None:
    program = evo_run(board, folder)
    path = folder / "other.evo"
    evo_tvm.compile(small_onnx, target).save(path)
    done = board.run(program, path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"evo-run: {path}: {text}") and done.stderr.count("\n") == 1


def test_machine_code_that_reads_the_vector_length(tmp_path: Path) -> None:
    """The bytes that the Python runtime executes, in a C program."""
    compiler = shutil.which("riscv64-linux-gnu-gcc")
    if compiler is None:
        pytest.skip("no riscv64-linux-gnu-gcc: run scripts/setup_emulators, or apt install g++-riscv64-linux-gnu")
    code = ", ".join(map(str, READ_VLENB))
    source = f"""
        #include <stdio.h>
        __attribute__((section(".text"), aligned(4))) const unsigned char code[] = {{{code}}};
        int main(void) {{ printf("%ld", ((long (*)(void))code)()); return 0; }}
    """
    (tmp_path / "main.c").write_text(source)
    subprocess.run([compiler, "-w", str(tmp_path / "main.c"), "-o", str(tmp_path / "main")], check=True)
    for board, length in ((RV128, 16), (RV256, 32)):
        board.require()
        assert board.run(tmp_path / "main").stdout == str(length)
