"""quantize(f(x)) => f(quantize(x)), f moves values; quantize(dequantize(q)) => q; quantize(relu(x)) => quantize(x).

So values stay integers between layers through pooling, concatenation, reshaping and resizing. An activation goes where
the quantization clips at the same bounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from evo_tvm.graph import Graph, Group, Op, Value

#: Operators whose results are some of their operands' values, whatever these stand for.
MOVES = frozenset(
    {"channel_shuffle", "channel_slice", "concat", "max_pool2d", "permute", "select", "upsample", "view"},
)


def move_quantize(graph: Graph) -> Graph:
    """Moves every quantization towards the inputs, as far as it goes."""
    while True:
        moved = next(_rewrites(graph), None)
        if moved is None:
            return graph
        graph = moved


def _rewrites(graph: Graph) -> Iterator[Graph]:
    producers, consumers = graph.producers(), graph.consumers()
    for group in graph.groups:
        if not group.is_only("quantize"):
            continue
        before = producers.get(group.inputs[0])
        if before is None or len(before.ops) != 1:
            continue
        if _cancels(before, group, graph):
            yield _without(graph, group, before.inputs[0])
        elif len(consumers[before.output]) > 1 or before.output in graph.outputs:
            continue
        elif is_implied(before.anchor, group.anchor.attrs):
            yield _without(graph, before, before.inputs[0])
        elif before.anchor.kind in MOVES and group.anchor.attrs["dtype"] == "uint8":
            yield _moved(graph, before, group)


def _cancels(before: Group, quantize: Group, graph: Graph) -> bool:
    if before.anchor.kind != "dequantize":
        return False
    attrs, dtype = quantize.anchor.attrs, graph.values[before.inputs[0]].dtype
    same = all(before.anchor.attrs[name] == attrs[name] for name in ("scale", "zero_point"))
    return same and dtype == attrs["dtype"]


def is_implied(op: Op, quantize: Mapping[str, Any]) -> bool:
    """Whether what the activation `op` cuts off is cut off by the quantization with these attributes, too."""
    info = np.iinfo(quantize["dtype"])
    if op.kind == "relu":
        return bool(quantize["zero_point"] == info.min)
    if op.kind != "clip":
        return False
    low, high = (np.rint(op.attrs[name] / quantize["scale"]) + quantize["zero_point"] for name in ("min", "max"))
    return bool(low <= info.min and high >= info.max)


def _without(graph: Graph, group: Group, instead: str) -> Graph:
    """The graph without `group`, whose result is `instead`."""

    def rename(name: str) -> str:
        return instead if name == group.output else name

    groups = [replace(g, inputs=tuple(map(rename, g.inputs))) for g in graph.groups if g is not group]
    return replace(graph, outputs=tuple(map(rename, graph.outputs))).with_groups(groups)


def _moved(graph: Graph, move: Group, quantize: Group) -> Graph:
    """The graph in which the operands of `move` are quantized, and it moves bytes."""
    attrs, values = quantize.anchor.attrs, dict(graph.values)
    values[quantize.output] = replace(values[quantize.output], zero=attrs["zero_point"])
    moved = [name for name in move.inputs if values[name].dtype == "float32"]  # not a decision
    narrow = {name: f"{name}@{quantize.output}" for name in moved}
    for name, new in narrow.items():
        values[new] = Value(new, values[name].shape, attrs["dtype"], zero=attrs["zero_point"])
    made = [Group(quantize.name, (name,), (new,), quantize.ops) for name, new in narrow.items()]
    inputs = tuple(narrow.get(name, name) for name in move.inputs)
    groups = []
    for group in graph.groups:
        if group is move:
            groups += [*made, replace(move, inputs=inputs, outputs=quantize.outputs)]
        elif group is not quantize:
            groups.append(group)
    return graph.with_groups(groups, **values)
