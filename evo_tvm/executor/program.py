"""The planned graph as a straight list of steps over four address spaces: inputs, outputs, weights and one arena."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evo_tvm.executor.memory import Lifetime, align, plan_arena
from evo_tvm.graph import Graph, Value
from evo_tvm.kernels.elementwise import EXPRESSIONS
from evo_tvm.kernels.lower_group import LoweredGroup, Parameter
from evo_tvm.plan.storage import Placement, View, storage_bytes


@dataclass(frozen=True)
class Pointer:
    """`offset` bytes into input or output number `index`, or into the weights or the arena."""

    space: str
    offset: int
    index: int = 0


@dataclass(frozen=True)
class Call:
    """One kernel call: the C function `symbol` on `arguments`; `kernel` numbers the call in the profile."""

    symbol: str
    arguments: tuple[Pointer, ...]
    kernel: int


@dataclass(frozen=True)
class ClearBorder:
    """Zeros around `planes` images of `rows` by `columns` pixels (border included) of `pixel_bytes` each."""

    at: Pointer
    planes: int
    rows: int
    columns: int
    pixel_bytes: int
    halo: tuple[int, int, int, int]


@dataclass(frozen=True)
class Copy:
    """`size_bytes` bytes from one place to another: an output that is an input, a constant, or another output."""

    source: Pointer
    target: Pointer
    size_bytes: int


Step = Call | ClearBorder | Copy


@dataclass(frozen=True)
class Program:
    """What the executor emits as `main`."""

    steps: tuple[Step, ...]
    weights: bytes
    arena_bytes: int


def plan_program(graph: Graph, lowered: Sequence[LoweredGroup], symbols: Sequence[str]) -> Program:
    """Places every value and constant and writes the calls. `symbols`: the C function of each lowered group."""
    return _Planner(graph, lowered).run(symbols)


class _Planner:
    def __init__(self, graph: Graph, lowered: Sequence[LoweredGroup]) -> None:
        self.graph, self.lowered = graph, lowered
        self.placement = Placement(graph)
        self.weights: list[bytes] = []
        self.weights_size = 0
        self._packed: dict[tuple[int, object], int] = {}
        self._merged: dict[str, str] = {}
        self.first: dict[str, int] = {}
        self.last: dict[str, int] = {}

    def run(self, symbols: Sequence[str]) -> Program:
        external, copies = self._externals()
        self._find_lifetimes(external)
        self._reuse_in_place(external)
        arena = [
            Lifetime(name, storage_bytes(self.graph.values[name]), self.first[name], self.last[name])
            for name in self.first
            if name not in external and name not in self._merged
        ]
        offsets, arena_bytes = plan_arena(arena)
        pointer = self._pointers(external, offsets)
        steps: list[Step] = []
        cleared: set[str] = set()
        for i, (kernel, symbol) in enumerate(zip(self.lowered, symbols, strict=True)):
            for output in kernel.group.outputs:
                root = self._storage(output)
                if root not in cleared and any(self.graph.values[root].layout.halo):
                    steps.append(_clear(self.graph.values[root], pointer(View(root, 0, (), (), ""))))
                    cleared.add(root)
            arguments = tuple(self._argument(p, pointer) for p in kernel.parameters)
            steps.append(Call(symbol, arguments, i))
        for name, target in copies:
            value = self.graph.values[name]
            source = self._constant(name, value.data) if value.data is not None else pointer(self.placement.view(name))
            steps.append(Copy(source, target, storage_bytes(value)))
        return Program(tuple(steps), b"".join(self.weights), max(arena_bytes, 64))

    def _externals(self) -> tuple[dict[str, Pointer], list[tuple[str, Pointer]]]:
        """Storages that the caller supplies, and outputs that must be copied to theirs."""
        external = {name: Pointer("input", 0, i) for i, name in enumerate(self.graph.inputs)}
        copies = []
        for i, name in enumerate(self.graph.outputs):
            root, target = self.placement.root(name), Pointer("output", 0, i)
            if root in external or self.graph.values[root].data is not None:
                copies.append((name, target))
            else:
                external[root] = target
        return external, copies

    def _storage(self, name: str) -> str:
        root = self.placement.root(name)
        while root in self._merged:
            root = self._merged[root]
        return root

    def _find_lifetimes(self, external: Mapping[str, Pointer]) -> None:
        for i, kernel in enumerate(self.lowered):
            for parameter in kernel.parameters:
                if parameter.view is not None:
                    self.first.setdefault(parameter.view.root, i)
                    self.last[parameter.view.root] = i
        for name in self.graph.outputs:
            root = self.placement.root(name)
            if root in self.last:
                self.last[root] = len(self.lowered)

    def _reuse_in_place(self, external: Mapping[str, Pointer]) -> None:
        """A kernel whose elementwise stage reads a value for the last time writes its result over it."""
        lone = {name for name in self.first if self.placement.root(name) == name}
        members: dict[str, int] = {}
        for name in self.graph.values:
            root = self.placement.root(name)
            members[root] = members.get(root, 0) + 1
        for i, kernel in enumerate(self.lowered):
            anchor, out = kernel.group.anchor, kernel.parameters[-1].view
            if anchor.kind in ("tir", "transform", "concat", "dense", "global_avg_pool2d") or out is None:
                continue
            read_by_anchor = set() if anchor.kind in EXPRESSIONS else {kernel.group.inputs[a] for a in anchor.args}
            for parameter in kernel.parameters[:-1]:
                view = parameter.view
                if (
                    view is not None
                    and parameter.name not in read_by_anchor
                    and view.root in lone
                    and members[view.root] == members[out.root] == 1
                    and view.root not in external
                    and out.root not in external
                    and self.last[view.root] == i
                    and (view.shape, view.strides, view.offset_bytes) == (out.shape, out.strides, out.offset_bytes)
                    and self.graph.values[view.root].layout == self.graph.values[out.root].layout
                ):
                    root = self._storage(view.root)
                    self._merged[out.root] = root
                    self.last[root] = self.last[out.root]
                    self.last[view.root] = self.last[out.root]
                    break

    def _pointers(self, external: Mapping[str, Pointer], offsets: Mapping[str, int]) -> Callable[[View], Pointer]:
        def pointer(view: View) -> Pointer:
            root = self._storage(view.root)
            if root in external:
                base = external[root]
                return Pointer(base.space, view.offset_bytes, base.index)
            return Pointer("arena", offsets[root] + view.offset_bytes)

        return pointer

    def _argument(self, parameter: Parameter, pointer: Callable[[View], Pointer]) -> Pointer:
        if parameter.packing is None:
            assert parameter.view is not None
            return pointer(parameter.view)
        data = self.graph.values[parameter.name].data
        assert data is not None
        return self._constant(parameter.name, data, parameter.packing)

    def _constant(self, name: str, data: np.ndarray, packing: object = None) -> Pointer:
        key = (id(data), packing)
        if key not in self._packed:
            packed = np.ascontiguousarray(data) if packing is None else packing.apply(data)  # type: ignore[attr-defined]
            self._packed[key] = self.weights_size
            raw = packed.tobytes()
            self.weights.append(raw + bytes(align(len(raw)) - len(raw)))
            self.weights_size += align(len(raw))
        return Pointer("weights", self._packed[key])


def _clear(value: Value, at: Pointer) -> ClearBorder:
    top, left, bottom, right = value.layout.halo
    n, c, h, w = value.shape
    block = value.layout.block
    pixel = block * np.dtype(value.dtype).itemsize
    return ClearBorder(at, n * -(-c // block), h + top + bottom, w + left + right, pixel, value.layout.halo)
