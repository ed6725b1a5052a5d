"""f(dequantize(quantize(x))) => f(clip(x)), where f reads floats, or is in one kernel with what makes x.

Other engines round there. What is dropped is an error, so the result comes closer to that of the float model; a
rounding stays where a layer in integers reads it, or where it lets a value lie in memory as bytes. The bounds of bytes
stay: models come without a ReLU where they have the same effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np

from evo_tvm.graph import Graph, Group, Op
from evo_tvm.kernels.elementwise import EXPRESSIONS
from evo_tvm.plan.fuse_epilogues import fuse_epilogues
from evo_tvm.plan.lower_integer import MEANS, integer_layers
from evo_tvm.plan.move_quantize import MOVES, is_implied

_BYTES, _FLOATS = "bytes", "floats"


def drop_roundings(graph: Graph, float_layers: Set[str] = frozenset()) -> Graph:
    """To be called while all operators are apart. float_layers: names of layers that will be computed in float.

    Where no layer is left in integers nothing is rounded any more.
    """
    integers = set(integer_layers(graph)) - float_layers
    wanted = _Wanted(graph, integers)
    pairs = {g.output: wanted.by(g.output) for g in graph.groups if _is_pair(graph, g)}
    if not integers:
        return _without(graph, set(pairs))[0]
    dropped = {name: by for name, by in pairs.items() if _BYTES not in by}
    while True:
        trial, instead = _without(graph, set(dropped))
        in_memory = fuse_epilogues(trial).values
        left = {name: by for name, by in dropped.items() if _FLOATS in by or instead[name] not in in_memory}
        if len(left) == len(dropped):
            return trial
        dropped = left


def _is_pair(graph: Graph, group: Group) -> bool:
    """Whether the group quantizes what is only dequantized again, by the same scale and zero point."""
    if not group.is_only("quantize") or group.output in graph.outputs:
        return False
    readers, attrs = graph.consumers()[group.output], group.anchor.attrs
    return bool(readers) and all(
        reader.is_only("dequantize")
        and all(reader.anchor.attrs[name] == attrs[name] for name in ("scale", "zero_point"))
        for reader in readers
    )


class _Wanted:
    """In which form values are wanted: as bytes, as floats, or either by elementwise operators, which take both."""

    def __init__(self, graph: Graph, integers: Set[str]) -> None:
        self._graph, self._integers, self._consumers = graph, integers, graph.consumers()
        self._known: dict[str, frozenset[str]] = {}

    def by(self, name: str) -> frozenset[str]:
        """What the readers of `name` ask for; what moves values asks for what its own readers do."""
        if name not in self._known:
            found: set[str] = {_FLOATS} if name in self._graph.outputs else set()
            for reader in self._consumers[name]:
                found |= self._reader(reader)
            self._known[name] = frozenset(found)
        return self._known[name]

    def _reader(self, reader: Group) -> Set[str]:
        kind = reader.anchor.kind
        if reader.name in self._integers or kind in MEANS:
            return {_BYTES}
        if kind == "dequantize":
            return self.by(reader.output)
        if kind in MOVES:  # of what is quantized behind it, bytes are moved
            behind = self._consumers[reader.output]
            return self.by(behind[0].output if _is(behind, "quantize") else reader.output)
        return frozenset() if kind in EXPRESSIONS else {_FLOATS}


def _is(groups: Sequence[Group], kind: str) -> bool:
    """Whether this is one group of that one operator."""
    return len(groups) == 1 and groups[0].is_only(kind)


def _without(graph: Graph, quantized: Set[str]) -> tuple[Graph, Mapping[str, str]]:
    """The graph in which who reads these values reads what they were made of, cut off where bytes end; and that."""
    producers, consumers = graph.producers(), graph.consumers()
    instead: dict[str, str] = {}
    values, groups = dict(graph.values), list[Group]()
    for group in graph.groups:
        if group.output in quantized:
            name = group.inputs[0]
            maker = producers.get(name)
            if maker is not None and is_implied(maker.anchor, group.anchor.attrs) and len(consumers[name]) == 1:
                name, maker = maker.inputs[0], None
            name = instead.get(name, name)
            instead[group.output] = name
            low, high = _bounds(group.anchor.attrs)
            if maker is None or not _lies_within(maker, low, high):
                instead[group.output] = clipped = f"{group.output}@clipped"
                values[clipped] = replace(values[name], name=clipped)
                groups.append(Group(clipped, (name,), (clipped,), (Op("clip", (0,), {"min": low, "max": high}),)))
        elif group.inputs[:1] and group.inputs[0] in quantized:
            instead[group.output] = instead[group.inputs[0]]
        else:
            groups.append(replace(group, inputs=tuple(instead.get(name, name) for name in group.inputs)))
    outputs = tuple(instead.get(name, name) for name in graph.outputs)
    changed = replace(graph, outputs=outputs).with_groups(groups, **values)
    return changed.without_unread({"clip", "relu"}), instead


def _bounds(quantize: Mapping[str, Any]) -> tuple[float, float]:
    """The least and the largest number that a byte stands for."""
    info = np.iinfo(quantize["dtype"])
    low, high = (quantize["scale"] * (int(bound) - quantize["zero_point"]) for bound in (info.min, info.max))
    return low, high


def _lies_within(maker: Group, low: float, high: float) -> bool:
    """Whether what it makes is never below `low` or above `high`."""
    op = maker.ops[-1]
    return op.kind == "clip" and bool(op.attrs["min"] >= low and op.attrs["max"] <= high)
