"""f(dequantize(quantize(x))) => f(x), where that is no slower: f reads floats, or is in one kernel with what makes x.

Other engines round there. What is dropped is an error, so the result comes closer to that of the float model; a
rounding stays where a layer in integers reads it, or where it lets a value lie in memory as bytes.
"""

from __future__ import annotations

from collections.abc import Set

from evo_tvm.graph import Graph, Group
from evo_tvm.kernels.elementwise import EXPRESSIONS
from evo_tvm.plan.fuse_epilogues import fuse_epilogues
from evo_tvm.plan.lower_integer import MEANS, integer_layers
from evo_tvm.plan.move_quantize import MOVES

_BYTES, _FLOATS = "bytes", "floats"


def drop_roundings(graph: Graph, float_layers: Set[str] = frozenset()) -> Graph:
    """To be called while all operators are apart. float_layers: names of layers that will be computed in float.

    Where no layer is left in integers nothing is rounded any more.
    """
    integers = set(integer_layers(graph)) - float_layers
    wanted = _Wanted(graph, integers)
    pairs = {g.output: wanted.by(g.output) for g in graph.groups if _is_pair(graph, g)}
    if not integers:
        return _without(graph, set(pairs))
    dropped, makers = {name: by for name, by in pairs.items() if _BYTES not in by}, graph.producers()
    while True:
        trial = _without(graph, set(dropped))
        in_memory = fuse_epilogues(trial).values
        left = {n: by for n, by in dropped.items() if _FLOATS in by or makers[n].inputs[0] not in in_memory}
        if len(left) == len(dropped):
            return trial
        dropped = left


def _is_pair(graph: Graph, group: Group) -> bool:
    """Whether the group quantizes what is only dequantized again, by the same scale and zero point."""
    if len(group.ops) != 1 or group.anchor.kind != "quantize" or group.output in graph.outputs:
        return False
    readers, attrs = graph.consumers()[group.output], group.anchor.attrs
    return bool(readers) and all(
        len(reader.ops) == 1
        and reader.anchor.kind == "dequantize"
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
            found = {_FLOATS} if name in self._graph.outputs else set()
            for reader in self._consumers[name]:
                found |= self._reader(reader)
            self._known[name] = frozenset(found)
        return self._known[name]

    def _reader(self, reader: Group) -> Set[str]:
        kind = reader.anchor.kind
        if reader.name in self._integers or kind in MEANS:
            return {_BYTES}
        if kind in ("quantize", "dequantize") or kind in MOVES:
            return self.by(reader.output)
        return frozenset() if kind in EXPRESSIONS else {_FLOATS}


def _without(graph: Graph, quantized: Set[str]) -> Graph:
    """The graph in which who reads these values read what they were made of."""
    instead: dict[str, str] = {}
    groups = []
    for group in graph.groups:
        if group.output in quantized:
            instead[group.output] = instead.get(group.inputs[0], group.inputs[0])
        elif group.inputs[:1] and group.inputs[0] in quantized:
            instead[group.output] = instead[group.inputs[0]]
        else:
            groups.append(_reading(group, instead))
    outputs = tuple(instead.get(name, name) for name in graph.outputs)
    return Graph(graph.values, (), graph.inputs, outputs, graph.parts).with_groups(groups)


def _reading(group: Group, instead: dict[str, str]) -> Group:
    inputs = tuple(instead.get(name, name) for name in group.inputs)
    return Group(group.name, inputs, group.outputs, group.ops)
