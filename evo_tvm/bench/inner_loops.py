"""Inner loops of direct kernels under llvm-mca, beside what the ports for multiply-adds allow."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.errors import EvoError
from evo_tvm.executor.codegen import assembly
from evo_tvm.executor.schedule_group import schedule_group
from evo_tvm.kernels.lower_group import lower_group
from evo_tvm.plan.assign_layouts import assign_layouts
from evo_tvm.plan.place_concats import place_concats
from evo_tvm.plan.storage import Placement
from evo_tvm.target import resolve
from evo_tvm.tune.one_kernel import KERNEL, graph_of
from evo_tvm.workload import Workload

#: What is compiled for, and whose model llvm-mca takes: its A76 is another core's.
TARGET, CPU = "neoverse-n1", "neoverse-n1"
#: Multiply-adds or dot products of vectors that it starts each cycle.
_PORTS = 2
_ITERATIONS = 100
#: Before, LLVM took the Cortex-A57's model for the Neoverse N1.
_PROGRAMS = ("llvm-mca", *(f"llvm-mca-{release}" for release in range(24, 16, -1)))
_FIRST_RELEASE = 17
_SHAPES = {
    "3x3, 64 to 64 at 56x56": ("1x64x56x56 64x64x3x3", "padding=1,1,1,1 stride=1,1", (1, 64, 56, 56)),
    "3x3 / 2, 64 to 128 at 28x28": ("1x64x56x56 128x64x3x3", "padding=1,1,1,1 stride=2,2", (1, 128, 28, 28)),
    "1x1, 96 to 576 at 14x14": ("1x96x14x14 576x96x1x1", "padding=0,0,0,0 stride=1,1", (1, 576, 14, 14)),
}
_EPILOGUES = {"float32": ("add", "relu"), "uint8": ("add", "rescale", "quantize")}


@dataclass(frozen=True)
class InnerLoop:
    """multiply_adds: vector instructions of them in an iteration; cycles: of an iteration; bound: what ports allow."""

    kernel: str
    dtype: str
    multiply_adds: int
    instructions: int
    cycles: float
    bound: float

    def as_json(self) -> dict[str, Any]:
        """The fields, and how many times the bound the cycles are."""
        return {**asdict(self), "ratio": self.cycles / self.bound}


def inner_loop_bounds() -> Iterator[InnerLoop]:
    """The loop with most multiply-adds of each kernel. Raises EvoError: no llvm-mca that knows the CPU."""
    mca, target = _find_mca(), resolve(TARGET)
    algorithm = ALGORITHMS["conv2d"]["spatial_pack"]
    for kernel, (shapes, places, output) in _SHAPES.items():
        for dtype, epilogue in _EPILOGUES.items():
            workload = Workload.from_key(f"conv2d {shapes} dilation=1,1 groups=1 {places} {dtype}", output, epilogue)
            config = algorithm.default(workload, target, 1)
            graph = place_concats(assign_layouts(graph_of(workload, algorithm.name, config), target.lanes_f32))
            group = next(group for group in graph.groups if group.name == KERNEL)
            lowered = lower_group(graph, Placement(graph), group, target.lanes_f32, target.signed_bytes)
            loop = inner_loop(assembly(schedule_group(lowered, target).mod["main"], KERNEL, target.tvm()))
            count = sum(map(_multiplies, loop))
            yield InnerLoop(kernel, dtype, count, len(loop), _cycles(mca, loop), count / _PORTS)


def inner_loop(text: str) -> list[str]:
    """The instructions of the loop that holds no other and has most multiply-adds, in AArch64's assembly."""
    labels: dict[str, int] = {}
    found: list[str] = []
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith((".p2", "//"))]
    for place, line in enumerate(lines):
        label = re.match(r"(\.L\w+):", line)
        back = re.match(r"(?:b\.\w+|cbn?z\s+\w+,)\s+(\.L\w+)$", line)
        if label:
            labels[label[1]] = place
        elif back and back[1] in labels:
            body = lines[labels[back[1]] + 1 : place + 1]
            innermost = not any(part.endswith(":") for part in body)
            if innermost and sum(map(_multiplies, body)) > sum(map(_multiplies, found)):
                found = body
    return found


def _multiplies(line: str) -> bool:
    return line.startswith(("fmla", "sdot", "sudot", "usdot", "udot"))


def _cycles(mca: str, loop: list[str]) -> float:
    options = ["-mtriple=aarch64-linux-gnu", f"-mcpu={CPU}", f"-iterations={_ITERATIONS}"]
    done = subprocess.run([mca, *options], input="\n".join(loop), capture_output=True, text=True, check=False)
    total = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    if total is None:
        raise EvoError(f"llvm-mca failed: {done.stderr.strip()[-300:]}")
    return int(total[1]) / _ITERATIONS


def _find_mca() -> str:
    for name in _PROGRAMS:
        path = shutil.which(name)
        if path is None:
            continue
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
        release = re.search(r"LLVM version (\d+)", said)
        if release and int(release[1]) >= _FIRST_RELEASE:
            return path
    raise EvoError(f"no llvm-mca of LLVM {_FIRST_RELEASE} or later is installed", hint="Run: apt install llvm-19")
