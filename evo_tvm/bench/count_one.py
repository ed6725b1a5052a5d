"""How many instructions a candidate's kernel takes on an emulated CPU: no time, but exact, and the same each time."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from evo_tvm.errors import EvoError
from evo_tvm.executor.codegen import build_object
from evo_tvm.executor.schedule_group import schedule_group
from evo_tvm.kernels.lower_group import Parameter, lower_group
from evo_tvm.plan.storage import Placement, storage_bytes
from evo_tvm.target import Target
from evo_tvm.tune.one_kernel import KERNEL, Candidate, planned

_HERE = Path(__file__).parent


class InstructionCounter:
    """Counts for one target, in `folder`, which must stay. Needs QEMU's user emulation and a cross compiler."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.target, self.folder = target, folder

    def count(self, candidate: Candidate) -> int:
        """Instructions of one call, on zeros. Raises EvoError: a program is missing, or fails; or whatever scheduling
        and code generation raise where the configuration does not fit."""
        graph = planned(candidate, self.target, 1)
        group = next(group for group in graph.groups if group.name == KERNEL)
        lowered = lower_group(graph, Placement(graph), group, self.target.lanes_f32)
        schedule = schedule_group(lowered, self.target)
        objects, program, operands = (self.folder / name for name in ("kernel.o", "program", "operands"))
        build_object(schedule.mod["main"], "kernel", self.target.tvm(), str(objects))
        _run([self._gcc, "-static", str(self._main), str(objects), "-lm", "-o", str(program)])
        with open(operands, "wb") as file:
            file.write(struct.pack("<Q", len(lowered.parameters)))
            for parameter in lowered.parameters:
                size, data = self._operand(graph.values, parameter)
                file.write(struct.pack("<QQ", size, data is not None))
                file.write(data if data is not None else b"")
        once, twice = (self._executed([str(program), str(operands), str(runs)]) for runs in (1, 2))
        return twice - once

    def _operand(self, values: object, parameter: Parameter) -> tuple[int, bytes | None]:
        """(bytes, what they are where that matters)"""
        if parameter.data is not None:
            return parameter.data.nbytes, np.ascontiguousarray(parameter.data).tobytes()
        value = values[parameter.view.root if parameter.view is not None else parameter.name]  # type: ignore[index]
        if parameter.view is not None:
            return storage_bytes(value), None
        if parameter.packing is None:
            return value.data.nbytes, None
        return int(np.prod(parameter.packing.shape)) * value.data.itemsize, None

    @cached_property
    def _gcc(self) -> str:
        return _program(f"{self.target.triple}-gcc", f"g++-{self.target.triple}")

    @cached_property
    def _main(self) -> Path:
        made = self.folder / "main.o"
        _run([self._gcc, "-O1", "-c", str(_HERE / "count_one.c"), "-o", str(made)])
        return made

    @cached_property
    def _emulator(self) -> list[str]:
        plugin = self.folder / "count.so"
        source = _HERE / "count_instructions.c"
        _run([_program("cc", "gcc"), "-std=c11", "-O2", "-fPIC", "-shared", str(source), "-o", str(plugin)])
        bits = self.target.vector_bits
        cpu = "max" if self.target.isa == "arm" else f"rv64,v=true,vlen={bits},vext_spec=v1.0" if bits else "rv64"
        return [_program(f"qemu-{self.target.arch}", "qemu-user"), "-cpu", cpu, "-plugin", str(plugin)]

    def _executed(self, command: Sequence[str]) -> int:
        found = re.search(r"^instructions (\d+)$", _run([*self._emulator, *command]), re.MULTILINE)
        if found is None:
            raise EvoError("QEMU's plugin said nothing", hint="Needs a QEMU (6 or later) that was built with plugins.")
        return int(found[1])


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise EvoError(f"{name} is not installed", hint=f"Run: apt install {package}")
    return found


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=120)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise EvoError(f"{Path(command[0]).name} failed with status {done.returncode}: {said[-300:]}")
    return done.stdout + done.stderr
