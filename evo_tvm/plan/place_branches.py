"""select(d, a, b) => a and b written to one place, that of the result, so that the branch taken has written it.

A residual block's shortcut already lies there where the kernel that ends the block can write over it and nobody reads
it afterwards; then a skipped block costs nothing. Where that does not go, a branch ends in a copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from evo_tvm.graph import Graph, Group, Layout, Op, Part, Value
from evo_tvm.kernels.elementwise import EXPRESSIONS
from evo_tvm.plan.assign_layouts import PLACEABLE, copy_bordered_views
from evo_tvm.plan.place_concats import share_halos

#: Kernels that have read all of their inputs, or not yet all of them, when they write their results.
NOT_IN_PLACE = ("tir", "transform", "concat", "dense", "global_avg_pool2d")


_SELECTS = ("select", "select_tiles")


def reads_in_place(group: Group, name: str) -> bool:
    """Whether the group reads an input element by element where it then writes its result."""
    if group.anchor.kind in NOT_IN_PLACE or name not in group.inputs:
        return name not in group.inputs
    return group.anchor.kind in EXPRESSIONS or name not in {group.inputs[a] for a in group.anchor.args}


def place_branches(graph: Graph) -> Graph:
    """Fills `Graph.parts` for every "select", which then is a name for the place alone."""
    if all(group.anchor.kind not in _SELECTS for group in graph.groups):
        return graph
    return _Placer(graph).run()


class _Placer:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.values: dict[str, Value] = dict(graph.values)
        self.parts: dict[str, Part] = dict(graph.parts)
        self.producers = graph.producers()
        self.consumers: Mapping[str, list[Group]] = graph.consumers()
        self.order = {name: i for i, group in enumerate(graph.groups) for name in group.outputs}
        self.viewed = {g.inputs[0] for g in graph.groups if g.anchor.kind == "view"}
        self.together: dict[str, list[str]] = {}  # result of a select -> all that lies in its place

    def run(self) -> Graph:
        groups: list[Group] = []
        for group in self.graph.groups:
            if group.anchor.kind == "select":
                copies, group = self._place(group)
                groups += copies
            elif group.anchor.kind == "select_tiles":
                self._place_tiles(group, groups)
            groups.append(group)
        share_halos(self.values, self.parts)
        graph = replace(self.graph, parts=self.parts)
        return graph.with_groups(copy_bordered_views(groups, self.values), **self.values)

    def _place(self, group: Group) -> tuple[list[Group], Group]:
        decision, *branches = (group.inputs[a] for a in group.anchor.args)
        out = group.output
        first, second = sorted(branches, key=lambda name: self.order.get(name, -1))
        whole = self._placeable(second, out) and self._only_for(second, group, decision)
        kept = {second} if whole else set()
        if self._placeable(first, out) and (self._dies_before(first, second, group) if whole else False):
            kept.add(first)
        copies = []
        for place, name in enumerate(branches):
            if name not in kept:
                copies.append(self._copy(name, f"{name}@{out}.{place}"))
                branches[place] = copies[-1].output
            self.parts[branches[place]] = Part(out, 0)
        members = [m for name in branches for m in self.together.get(name, [name])]
        self.together[out] = [*members, out]
        return copies, replace(group, inputs=(decision, *branches), ops=(Op("select", (0, 1, 2)),))

    def _place_tiles(self, group: Group, before: list[Group]) -> None:
        """Tiles are written over what is there in the others' place: the shortcut itself, or a copy made before."""
        (_, on, *others), out = group.inputs, group.output
        self.parts[on] = Part(out, 0)
        self.together[out] = [on, out]
        for off in others:
            if self._placeable(off, out) and self._dies_before(off, on, group):
                self.together[out] += self.together.get(off, [off])
            else:
                copy = self._copy(off, f"{off}@{out}")
                before.insert(next(i for i, g in enumerate(before) if on in g.outputs), copy)
                off = copy.output
            self.parts[off] = Part(out, 0)

    def _placeable(self, name: str, out: str) -> bool:
        producer, value = self.producers.get(name), self.values[name]
        if producer is None or name in self.parts or value.layout.block != self.values[out].layout.block:
            return False
        if name in self.graph.outputs or producer.anchor.kind in ("view", "join"):
            return False
        plain = value.layout.block == 1 and not any((*value.layout.halo, *self.values[out].layout.halo))
        return plain or (producer.anchor.kind in PLACEABLE and not {name, out} & self.viewed)

    def _only_for(self, name: str, group: Group, decision: str) -> bool:
        """Whether nothing but the select reads it, and all that writes it comes after the decision."""
        writers = [self.order[m] for m in self.together.get(name, [name])]
        return [g.output for g in self.consumers[name]] == [group.output] and min(writers) > self.order[decision]

    def _dies_before(self, first: str, second: str, group: Group) -> bool:
        """Whether `first` is needed by nobody but the select once `second` is being written over it."""
        begin = min(self.together.get(second, [second]), key=self.order.__getitem__)
        writer = self.producers[begin]
        for member in self.together.get(first, [first]):
            for reader in self.consumers.get(member, ()):
                if reader.anchor.kind in _SELECTS:
                    if reader.output not in (group.output, *self.together.get(first, [])):
                        return False
                    continue
                here = self.order[reader.outputs[0]]
                if reader.anchor.kind in ("view", "join") or here > self.order[begin]:
                    return False
                if reader.outputs[0] == writer.outputs[0] and not reads_in_place(writer, member):
                    return False
        return True

    def _copy(self, name: str, copy: str) -> Group:
        value = self.values[name]
        rank = len(value.shape)
        self.values[copy] = replace(value, name=copy, data=None, layout=Layout(value.layout.block))
        op = Op("transform", (0,)) if rank == 4 else Op("permute", (0,), {"axes": tuple(range(rank))})
        return Group(copy, (name,), (copy,), (op,))
