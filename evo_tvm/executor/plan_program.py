"""The planned graph => a program: a place for every value and constant, and the steps in order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evo_tvm.executor.memory import Lifetime, align, plan_arena
from evo_tvm.executor.program import (
    Call,
    ClearTiles,
    Condition,
    Copy,
    Decide,
    FillBorder,
    PlannedGate,
    Pointer,
    Prepare,
    Program,
    Rectangle,
    Step,
    Tiles,
)
from evo_tvm.graph import Graph, Group, Layout, Value
from evo_tvm.kernels.elementwise import EXPRESSIONS
from evo_tvm.kernels.lower_group import LoweredGroup
from evo_tvm.kernels.pack import Packing
from evo_tvm.kernels.parameters import Parameter
from evo_tvm.plan.place_branches import NOT_IN_PLACE
from evo_tvm.plan.storage import Placement, View, storage_bytes
from evo_tvm.runtime.tensors import aligned_bytes


@dataclass(frozen=True)
class LoweredRectangle:
    """A kernel for `down` by `across` tiles of a tiled group, `height` by `width` pixels, and its C function."""

    down: int
    across: int
    height: int
    width: int
    lowered: LoweredGroup
    symbol: str


def plan_program(
    graph: Graph,
    lowered: Sequence[LoweredGroup],
    symbols: Sequence[str],
    rectangles: Mapping[str, Sequence[LoweredRectangle]] | None = None,
) -> Program:
    """Places every value and constant and writes the calls. `symbols`: the C function of each lowered group;
    rectangles: of groups whose tiles are computed one by one, by their outputs."""
    return _Planner(graph, lowered, rectangles or {}).run(symbols)


class _Planner:
    def __init__(
        self, graph: Graph, lowered: Sequence[LoweredGroup], rectangles: Mapping[str, Sequence[LoweredRectangle]]
    ) -> None:
        self.graph, self.lowered, self.rectangles = graph, lowered, rectangles
        self.placement = Placement(graph)
        kernels = {kernel.group.outputs[0]: kernel for kernel in lowered}
        #: What happens, in order: a kernel runs, or a gate decides.
        self.events: list[LoweredGroup | Group] = [
            kernels.get(g.outputs[0], g)
            for g in graph.groups
            if g.outputs[0] in kernels or g.anchor.kind in ("decide", "select_tiles")
        ]
        self.slots: dict[str, int] = {}
        self.masks: dict[str, int] = {}
        self.gates: list[PlannedGate] = []
        self._number_gates()
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
        symbol_of = dict(zip([id(kernel) for kernel in self.lowered], symbols, strict=True))
        for event in self.events:
            if isinstance(event, Group):
                if event.anchor.kind == "decide":
                    steps.append(self._decide(event, pointer))
                elif len(event.inputs) == 2:
                    steps.append(self._clear(event, pointer))
                continue
            for output in event.group.outputs:
                root = self._storage(output)
                if root not in filled and any(self.graph.values[root].layout.halo):
                    at = pointer(View(root, 0, (), (), ""))
                    steps.append(_fill(self.graph.values[root], at, self._always(root)))
                    filled.add(root)
            arguments = tuple(self._argument(p, pointer) for p in event.parameters)
            number = len([step for step in steps if isinstance(step, Call)])
            conditions, tiles = self._conditions(event.group), self._tiles(event.group, pointer)
            steps.append(Call(symbol_of[id(event)], arguments, number, conditions, tiles))
        for name, target in copies:
            value = self.graph.values[name]
            source = self._constant(name, value.data) if value.data is not None else pointer(self.placement.view(name))
            steps.append(Copy(source, target, storage_bytes(value)))
        preparations = tuple(self.preparations)
        size = max(arena_bytes, 64)
        return Program(tuple(steps), self._weights(), size, preparations, self.prepared_size, tuple(self.gates))

    def _number_gates(self) -> None:
        """Gives each gate its place among the decisions, and its mask a place."""
        slot = mask = 0
        for event in self.events:
            if isinstance(event, Group) and event.anchor.kind == "decide":
                attrs, kind = event.anchor.attrs, event.anchor.attrs["gate_kind"]
                result, logits = self.graph.values[event.output], self.graph.values[event.inputs[0]]
                count = 1 if kind == "exit" else logits.size
                channels = result.size if kind == "channel" else 0
                self.slots[event.output] = slot
                self.masks[event.output] = mask
                self.gates.append(PlannedGate(attrs["gate"], kind, attrs["threshold"], count, channels))
                slot, mask = slot + count, mask + align(4 * channels)

    def _decide(self, group: Group, pointer: Callable[[View], Pointer]) -> Decide:
        (logits,) = group.inputs
        gate = [*self.slots].index(group.output)
        planned, at = self.gates[gate], pointer(self.placement.view(logits))
        mask = Pointer("masks", self.masks[group.output]) if planned.channels else None
        count, conditions = self.graph.values[logits].size, self._conditions(group)
        return Decide(gate, planned.kind, at, count, self.slots[group.output], mask, planned.channels, conditions)

    def _tiles(self, group: Group, pointer: Callable[[View], Pointer]) -> Tiles | None:
        if group.tiled is None:
            return None
        shape, side = self.graph.values[group.output].shape, group.tiled.side
        rectangles = []
        for part in self.rectangles[group.output]:
            arguments = tuple(self._argument(p, pointer) for p in part.lowered.parameters)
            strides = tuple(self._pixel_strides(p, shape) for p in part.lowered.parameters)
            sizes = part.down, part.across, part.height, part.width
            rectangles.append(Rectangle(*sizes, part.symbol, arguments, strides))
        slot, margin, (height, width) = self.slots[group.tiled.decisions], group.tiled.margin, shape[2:]
        return Tiles(slot, height // side, width // side, side, margin, height, width, tuple(rectangles))

    def _pixel_strides(self, parameter: Parameter, shape: tuple[int, ...]) -> tuple[int, int]:
        """Bytes that a parameter moves by for the next pixel of the output, down and across."""
        if parameter.view is None or len(parameter.view.strides) != 5:
            return 0, 0
        value, item = self.graph.values[parameter.name], np.dtype(parameter.view.dtype).itemsize
        _, _, down, across, _ = parameter.view.strides
        rows, columns = (a // b for a, b in zip(value.shape[2:], shape[2:], strict=True))
        return down * rows * item, across * columns * item

    def _clear(self, group: Group, pointer: Callable[[View], Pointer]) -> ClearTiles:
        value, side = self.graph.values[group.output], group.anchor.attrs["side"]
        view = self.placement.view(group.inputs[1], (*value.shape, 1))
        item = np.dtype(value.dtype).itemsize
        _, planes, height, width, block = view.shape
        _, plane, row, _, _ = view.strides
        grid = height // side, width // side
        tiles = Tiles(self.slots[group.inputs[0]], *grid, side, 0, height, width)
        sizes = planes, plane * item, row * item, block * item
        return ClearTiles(pointer(view), *sizes, tiles, self._conditions(group))

    def _conditions(self, group: Group) -> tuple[Condition, ...]:
        return tuple(Condition(self.slots[guard.decision], guard.on) for guard in group.guards)

    def _always(self, root: str) -> tuple[Condition, ...]:
        """What holds whenever something is written to this storage."""
        writers = [e.group for e in self.events if not isinstance(e, Group)]
        found = [self._conditions(g) for g in writers if root in {self._storage(name) for name in g.outputs}]
        return tuple(condition for condition in found[0] if all(condition in other for other in found))

    def _externals(self) -> tuple[dict[str, Pointer], list[tuple[str, Pointer]]]:
        """Storages that the caller supplies, and outputs that must be copied to theirs."""
        external = {name: Pointer("input", 0, i) for i, name in enumerate(self.graph.inputs)}
        external |= {name: Pointer("masks", mask) for name, mask in self.masks.items()}
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
        for i, event in enumerate(self.events):
            if isinstance(event, Group):
                if event.anchor.kind == "decide":
                    self.last[self.placement.root(event.inputs[0])] = i
                continue
            for parameter in event.parameters:
                if parameter.view is not None:
                    self.first.setdefault(parameter.view.root, i)
                    self.last[parameter.view.root] = i
        for name in self.graph.outputs:
            root = self.placement.root(name)
            if root in self.last:
                self.last[root] = len(self.events)

    def _reuse_in_place(self, external: Mapping[str, Pointer]) -> None:
        """A kernel whose elementwise stage reads a value for the last time writes its result over it."""
        lone = {name for name in self.first if self.placement.root(name) == name}
        members: dict[str, int] = {}
        for name in self.graph.values:
            root = self.placement.root(name)
            members[root] = members.get(root, 0) + 1
        for i, kernel in enumerate(self.events):
            if isinstance(kernel, Group):
                continue
            anchor, out = kernel.group.anchor, kernel.parameters[-1].view
            if anchor.kind in NOT_IN_PLACE or out is None:
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
                return Pointer(base.space, base.offset + view.offset_bytes, base.index)
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


def _fill(value: Value, at: Pointer, guards: tuple[Condition, ...]) -> FillBorder:
    top, left, bottom, right = value.layout.halo
    n, c, h, w = value.shape
    block = value.layout.block
    pixel = block * np.dtype(value.dtype).itemsize
    planes, rows, columns = n * -(-c // block), h + top + bottom, w + left + right
    return FillBorder(at, value.zero, planes, rows, columns, pixel, value.layout.halo, guards)
