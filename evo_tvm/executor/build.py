"""Lowered groups => machine code: each distinct kernel once, on all cores, then one library."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evo_tvm.decide import config_text
from evo_tvm.executor.cache import Cache, open_cache
from evo_tvm.executor.codegen import build_object
from evo_tvm.executor.emit import emit_c
from evo_tvm.executor.emit_batch import emit_batch_c, sample_stride
from evo_tvm.executor.kernel_key import kernel_key
from evo_tvm.executor.link import EXPORTS, GATE_EXPORTS, SUPPORT_SOURCES, link_library
from evo_tvm.executor.peak import build_peak
from evo_tvm.executor.plan_program import LoweredRectangle, plan_program
from evo_tvm.executor.program import Program
from evo_tvm.executor.schedule_group import algorithm_name, loops_text, schedule_group
from evo_tvm.executor.workers import Workers
from evo_tvm.graph import Graph, Group
from evo_tvm.kernels.cost import computes_in, flops, moved_bytes
from evo_tvm.kernels.lower_group import LoweredGroup, lower_group
from evo_tvm.plan.storage import PartPlacement, Placement
from evo_tvm.plan.tile_branches import rectangle, rectangle_group
from evo_tvm.runtime.manifest import KernelInfo
from evo_tvm.spec import TensorSpec
from evo_tvm.target import Target

Progress = Callable[[str, int, int], None]

#: Groups that are only a way to see memory, where nothing runs, and decisions, which `main` makes itself.
NO_KERNEL = ("view", "join", "select", "select_tiles", "decide")


@dataclass(frozen=True)
class Built:
    """A linked model: the library's bytes, its program (of one sample), what its kernels are, and its whole arena."""

    library: bytes
    program: Program
    kernels: tuple[KernelInfo, ...]
    source: str
    arena_bytes: int


def kernels_of(graph: Graph) -> tuple[Group, ...]:
    """The groups that run as a kernel, in order."""
    return tuple(group for group in graph.groups if group.anchor.kind not in NO_KERNEL)


def build(
    graph: Graph,
    target: Target,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    progress: Progress,
    batch: int = 1,
) -> Built:
    """Lowers, schedules, compiles and links the planned graph; what the cache has is not compiled again.

    inputs, outputs: those of a run, which takes `batch` samples through the graph one by one.

    Raises CompileError: a kernel could not be compiled, or the library not linked.
    """
    placement = Placement(graph)
    groups = kernels_of(graph)
    lowered = [lower_group(graph, placement, g, target.lanes_f32, target.signed_bytes) for g in groups]
    keys = [kernel_key(kernel, target) for kernel in lowered]
    symbols = [_symbol(key) for key in keys]
    tiled = {g.output: _rectangles(graph, placement, g, target) for g in groups if g.tiled is not None}
    parts = {kernel_key(r.lowered, target): r.lowered for some in tiled.values() for r in some}
    cache = open_cache()
    with (
        tempfile.TemporaryDirectory(prefix="evo_tvm_build_") as folder,
        _Kernels({**parts, **dict(zip(keys, lowered, strict=True))}, target, cache, Path(folder)) as kernels,
    ):
        # While the workers compile, this process packs the weights.
        program = plan_program(graph, lowered, symbols, tiled)
        peaks = [build_peak(target, cache, dtype) for dtype in sorted({"float32", *map(computes_in, lowered)})]
        named = program, target.triple, inputs, outputs, len(lowered), peaks
        source = emit_c(*named) if batch == 1 else emit_batch_c(*named, batch)
        arena = program.arena_bytes if batch == 1 else batch * sample_stride(program, inputs, outputs, batch)
        main = Path(folder) / "model.c"
        main.write_text(source)
        made = kernels.collect(progress)
        objects = []
        for i, code in enumerate([*(kernel.code for kernel in made.values()), *(peak.code for peak in peaks)]):
            objects.append(Path(folder) / f"{i}.o")
            objects[-1].write_bytes(code)
        progress("link", 0, 1)
        library = Path(folder) / "model.so"
        exports = (*EXPORTS, *GATE_EXPORTS) if program.gates else EXPORTS
        link_library(objects, [main, *SUPPORT_SOURCES], library, target.triple, cache, exports)
        progress("link", 1, 1)
        cache.trim()
        gates = {g.output: str(g.anchor.attrs["gate"]) for g in graph.groups if g.anchor.kind == "decide"}
        infos = [_info(k, made[key], s, gates) for k, key, s in zip(lowered, keys, symbols, strict=True)]
        return Built(library.read_bytes(), program, tuple(infos), source, arena)


def _rectangles(graph: Graph, placement: Placement, group: Group, target: Target) -> list[LoweredRectangle]:
    """The kernels of a group that is computed tile by tile."""
    shape, found = graph.values[group.output].shape, []
    for kernel in group.tiled.kernels if group.tiled is not None else ():
        small, part = rectangle_group(graph, group, kernel)
        within = PartPlacement(placement, small.values)
        lowered = lower_group(small, within, part, target.lanes_f32, target.signed_bytes)
        symbol = _symbol(kernel_key(lowered, target))
        size = kernel.down, kernel.across
        found.append(LoweredRectangle(*size, *rectangle(group, shape, *size), lowered, symbol))
    return found


@dataclass(frozen=True)
class _Kernel:
    """A compiled kernel: an object file's content, and how it came about."""

    algorithm: str
    config: str
    code: bytes

    def to_bytes(self) -> bytes:
        return json.dumps([self.algorithm, self.config]).encode() + b"\n" + self.code

    @staticmethod
    def from_bytes(data: bytes) -> _Kernel:
        head, _, code = data.partition(b"\n")
        algorithm, config = json.loads(head)
        return _Kernel(algorithm, config, code)


class _Kernels:
    """The distinct kernels of a model by key: those that the cache has, and workers that compile the others."""

    def __init__(self, lowered: Mapping[str, LoweredGroup], target: Target, cache: Cache, folder: Path) -> None:
        self.lowered, self.target, self.cache, self.folder = lowered, target, cache, folder
        found = {key: cache.get("kernel", key) for key in lowered}
        self.known = {key: _Kernel.from_bytes(data) for key, data in found.items() if data is not None}
        self.missing = [key for key in lowered if key not in self.known]
        # The longest function takes longest, give or take; begun last it would keep the others waiting.
        sizes = [len(str(lowered[key].func)) for key in self.missing]
        order = sorted(range(len(self.missing)), key=lambda i: -sizes[i])
        names = [lowered[key].group.name for key in self.missing]
        self.workers = Workers(self._compile, names, order)

    def __enter__(self) -> _Kernels:
        self.tvm_target = self.target.tvm()
        self.workers.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.workers.__exit__(*error)

    def collect(self, progress: Progress) -> Mapping[str, _Kernel]:
        """All kernels, in the order of the model, once they are compiled."""
        progress("compile kernels", len(self.known), len(self.lowered))
        for job, kernel in self.workers.results():
            self.cache.put("kernel", self.missing[job], kernel.to_bytes())
            self.known[self.missing[job]] = kernel
            progress("compile kernels", len(self.known), len(self.lowered))
        return {key: self.known[key] for key in self.lowered}

    def _compile(self, job: int) -> _Kernel:
        """In a worker."""
        key = self.missing[job]
        kernel = self.lowered[key]
        schedule = schedule_group(kernel, self.target)
        path = self.folder / f"kernel_{job}.o"
        build_object(schedule.mod["main"], _symbol(key), self.tvm_target, str(path))
        algorithm, config = algorithm_name(kernel), kernel.group.anchor.attrs.get("config")
        text = loops_text(schedule) if algorithm == "default" else config_text(config)
        return _Kernel(algorithm, text, path.read_bytes())


def _symbol(key: str) -> str:
    """The C function of the kernel with this key, whatever the model: its object code has the name in it."""
    return f"evo_kernel_{key[:16]}"


def _info(lowered: LoweredGroup, kernel: _Kernel, symbol: str, gates: Mapping[str, str]) -> KernelInfo:
    """Describes a call of the kernel. gates: name of each by its decision."""
    return KernelInfo(
        name=symbol,
        operator="+".join(op.kind for op in lowered.group.ops),
        algorithm=kernel.algorithm,
        schedule=kernel.config,
        layers=(lowered.group.name,),
        flops=flops(lowered),
        bytes=moved_bytes(lowered),
        dtype=computes_in(lowered),
        guards=tuple(f"{'+' if guard.on else '-'}{gates[guard.decision]}" for guard in lowered.group.guards),
    )
