"""The planned graph as a straight list of steps over inputs, outputs, weights, prepared weights and one arena."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evo_tvm.executor.memory import Lifetime, align, plan_arena
from evo_tvm.graph import Graph, Layout, Value
from evo_tvm.kernels.elementwise import EXPRESSIONS
from evo_tvm.kernels.lower_group import LoweredGroup, Parameter
from evo_tvm.kernels.pack import Packing, Preparation
from evo_tvm.plan.storage import Placement, View, storage_bytes
from evo_tvm.runtime.tensors import aligned_bytes


@dataclass(frozen=True)
class Pointer:
    """`offset` bytes into input or output number `index`, or into "weights", "prepared" or "arena"."""

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
class FillBorder:
    """`byte` around `planes` images of `rows` by `columns` pixels (border included) of `pixel_bytes` each."""

    at: Pointer
    byte: int
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


Step = Call | FillBorder | Copy


@dataclass(frozen=True)
class Prepare:
    """A constant that is made of a smaller one, once, before the first run."""

    source: Pointer
    target: Pointer
    how: Preparation


@dataclass(frozen=True)
class Program:
    """What the executor emits as `main`, and as what goes before its first run.

    `weights`: every constant once, as the .evo file keeps it. `prepared_bytes`: the memory that `preparations` fill.
    """

    steps: tuple[Step, ...]
    weights: bytes | memoryview
    arena_bytes: int
    preparations: tuple[Prepare, ...] = ()
    prepared_bytes: int = 0


def plan_program(graph: Graph, lowered: Sequence[LoweredGroup], symbols: Sequence[str]) -> Program:
    """Places every value and constant and writes the calls. `symbols`: the C function of each lowered group."""
    return _Planner(graph, lowered).run(symbols)


class _Planner:
    def __init__(self, graph: Graph, lowered: Sequence[LoweredGroup]) -> None:
        self.graph, self.lowered = graph, lowered
        self.placement = Placement(graph)
        self.weights: list[tuple[int, np.ndarray]] = []
        self.weights_size = 0
        self.preparations: list[Prepare] = []
        self.prepared_size = 0
        self._packed: dict[tuple[int, object], Pointer] = {}
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
        filled: set[str] = set()
        for i, (kernel, symbol) in enumerate(zip(self.lowered, symbols, strict=True)):
            for output in kernel.group.outputs:
                root = self._storage(output)
                if root not in filled and any(self.graph.values[root].layout.halo):
                    steps.append(_fill(self.graph.values[root], pointer(View(root, 0, (), (), ""))))
                    filled.add(root)
            arguments = tuple(self._argument(p, pointer) for p in kernel.parameters)
            steps.append(Call(symbol, arguments, i))
        for name, target in copies:
            value = self.graph.values[name]
            source = self._constant(name, value.data) if value.data is not None else pointer(self.placement.view(name))
            steps.append(Copy(source, target, storage_bytes(value)))
        preparations = tuple(self.preparations)
        return Program(tuple(steps), self._weights(), max(arena_bytes, 64), preparations, self.prepared_size)

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
                    and np.dtype(view.dtype).itemsize == np.dtype(out.dtype).itemsize
                    and _around(self.graph.values[view.root]) == _around(self.graph.values[out.root])
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
        if parameter.view is not None:
            return pointer(parameter.view)
        if parameter.data is not None:
            return self._constant(parameter.name, parameter.data)
        data = self.graph.values[parameter.name].data
        assert data is not None
        return self._constant(parameter.name, data, parameter.packing)

    def _constant(self, name: str, data: np.ndarray, packing: Packing | None = None) -> Pointer:
        key = (id(data), packing)
        if key not in self._packed:
            how = packing.preparation if packing is not None else None
            if packing is None or how is None:
                self._packed[key] = Pointer("weights", self.weights_size)
                packed = np.ascontiguousarray(data) if packing is None else packing.apply(data)
                self.weights.append((self.weights_size, packed))
                self.weights_size += align(packed.nbytes)
            else:
                source, target = self._constant(name, data, packing.stored), Pointer("prepared", self.prepared_size)
                self._packed[key] = target
                self.preparations.append(Prepare(source, target, how))
                self.prepared_size += align(math.prod(packing.shape) * data.itemsize)
        return self._packed[key]

    def _weights(self) -> bytes | memoryview:
        """All constants one after the other, at aligned offsets, zeros between them."""
        if not self.weights_size:
            return b""
        whole = aligned_bytes(self.weights_size)
        end = 0
        for offset, array in self.weights:
            whole[end:offset] = 0
            end = offset + array.nbytes
            whole[offset:end] = array.reshape(-1).view(np.uint8)
        whole[end:] = 0
        return whole.data


def _around(value: Value) -> tuple[Layout, int]:
    """How the value lies, and what fills its border."""
    return value.layout, value.zero if any(value.layout.halo) else 0


def _fill(value: Value, at: Pointer) -> FillBorder:
    top, left, bottom, right = value.layout.halo
    n, c, h, w = value.shape
    block = value.layout.block
    pixel = block * np.dtype(value.dtype).itemsize
    return FillBorder(at, value.zero, n * -(-c // block), h + top + bottom, w + left + right, pixel, value.layout.halo)
