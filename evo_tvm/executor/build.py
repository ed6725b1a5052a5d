"""Lowered groups => machine code: each distinct kernel once, then one library."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tvm_ffi
from tvm import tirx

from evo_tvm.decide import decide
from evo_tvm.executor.codegen import build_object
from evo_tvm.executor.emit import emit_c
from evo_tvm.executor.link import SUPPORT_SOURCES, link_library
from evo_tvm.executor.program import Program, plan_program
from evo_tvm.graph import Graph
from evo_tvm.kernels.cost import flops, moved_bytes
from evo_tvm.kernels.lower_group import LoweredGroup, lower_group
from evo_tvm.plan.storage import Placement
from evo_tvm.runtime.manifest import KernelInfo
from evo_tvm.spec import TensorSpec
from evo_tvm.target import Target

Progress = Callable[[str, int, int], None]

#: Groups that are only a way to see memory: nothing runs.
NO_KERNEL = ("view", "join")


@dataclass(frozen=True)
class Built:
    """A linked model: the library's bytes, its program and what its kernels are."""

    library: bytes
    program: Program
    kernels: tuple[KernelInfo, ...]
    source: str


def build(
    graph: Graph,
    target: Target,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    num_threads: int,
    progress: Progress,
) -> Built:
    """Lowers, schedules, compiles and links the planned graph."""
    placement = Placement(graph)
    groups = [g for g in graph.groups if g.anchor.kind not in NO_KERNEL]
    lowered = [lower_group(graph, placement, g, target.lanes_f32) for g in groups]
    with tempfile.TemporaryDirectory(prefix="evo_tvm_build_") as folder:
        compiler = _KernelCompiler(target, num_threads, Path(folder))
        infos = []
        for i, kernel in enumerate(lowered):
            progress("compile kernels", i, len(lowered))
            infos.append(compiler.add(kernel))
        progress("compile kernels", len(lowered), len(lowered))
        program = plan_program(graph, lowered, [info.name for info in infos])
        source = emit_c(program, target.triple, inputs, outputs, len(lowered))
        main = Path(folder) / "model.c"
        main.write_text(source)
        progress("link", 0, 1)
        library = Path(folder) / "model.so"
        link_library(compiler.objects, [main, *SUPPORT_SOURCES], library, target.triple)
        progress("link", 1, 1)
        return Built(library.read_bytes(), program, tuple(infos), source)


class _KernelCompiler:
    def __init__(self, target: Target, num_threads: int, folder: Path) -> None:
        self.target, self.num_threads, self.folder = target, num_threads, folder
        self.tvm_target = target.tvm()
        self.objects: list[Path] = []
        self._known: dict[int, list[tuple[tirx.PrimFunc, str, str, str]]] = {}

    def add(self, kernel: LoweredGroup) -> KernelInfo:
        """Compiles the kernel unless an equal one is there, and describes the call."""
        alike = self._known.setdefault(tvm_ffi.structural_hash(kernel.func, map_free_vars=True), [])
        equal = [k for k in alike if tvm_ffi.structural_equal(k[0], kernel.func, map_free_vars=True)]
        if not equal:
            choice = decide(kernel, self.target, self.num_threads)
            symbol = f"evo_kernel_{len(self.objects)}"
            path = self.folder / f"{symbol}.o"
            build_object(choice.schedule.mod["main"], symbol, self.tvm_target, str(path))
            self.objects.append(path)
            equal = [(kernel.func, symbol, choice.algorithm, choice.config)]
            alike += equal
        _, symbol, algorithm, config = equal[0]
        return KernelInfo(
            name=symbol,
            operator="+".join(op.kind for op in kernel.group.ops),
            algorithm=algorithm,
            schedule=config,
            layers=(kernel.group.name,),
            flops=flops(kernel),
            bytes=moved_bytes(kernel),
        )
