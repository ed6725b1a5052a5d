"""A target's CPU under QEMU's user emulation: programs run, and their instructions counted by a plugin of ours."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evo_tvm.errors import EvoError
from evo_tvm.programs import find_program, run_program
from evo_tvm.target import Target

_PLUGIN = Path(__file__).with_name("count_instructions.c")
_SAID = re.compile(r"^instructions=(\d+) vector_fma=(\d+) lanes=(\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Counted:
    """What is executed. vector_fma: multiply-adds of RISC-V's vectors of float32, of `lanes` lanes in all."""

    instructions: int
    vector_fma: int
    lanes: int

    def __sub__(self, other: Counted) -> Counted:
        return Counted(
            self.instructions - other.instructions, self.vector_fma - other.vector_fma, self.lanes - other.lanes
        )


def missing_packages(target: Target) -> list[str]:
    """Debian's packages that are needed here, and not installed."""
    needed = {f"qemu-{target.arch}": "qemu-user", f"{target.triple}-gcc": f"g++-{target.triple}"}
    return [package for program, package in needed.items() if shutil.which(program) is None]


def emulator(target: Target) -> list[str]:
    """The command that programs for the target run under. Raises EvoError: QEMU is not installed."""
    return [find_program(f"qemu-{target.arch}", "qemu-user"), "-cpu", _cpu(target)]


def count(target: Target, command: Sequence[str], folder: Path) -> Counted:
    """What `command`, a program for the target behind options of QEMU's, executes. folder: for the plugin, which is
    compiled into it once.

    Raises EvoError: QEMU or a C compiler is not installed, or the program fails.
    """
    plugin = folder / "count_instructions.so"
    if not plugin.exists():
        flags = ["-std=c11", "-O2", "-fPIC", "-shared"]
        run_program([find_program("cc", "gcc"), *flags, str(_PLUGIN), "-o", str(plugin)])
    bits = target.vector_bits if target.isa == "riscv" else 0
    said = run_program([*emulator(target), "-plugin", f"{plugin},vlen={bits}", *command])
    found = _SAID.search(said)
    if found is None:
        raise EvoError("QEMU's plugin said nothing", hint="Needs a QEMU (6 or later) that was built with plugins.")
    return Counted(*map(int, found.groups()))


def _cpu(target: Target) -> str:
    """QEMU's name of a CPU that has what the target may use, and little else."""
    if target.arch == "aarch64":
        return {"usdot": "max", "sdot": "cortex-a76"}.get(target.dot_instruction or "", "cortex-a72")
    bits = target.vector_bits
    return f"rv64,v=true,vlen={bits},vext_spec=v1.0" if bits else "rv64,v=false"
