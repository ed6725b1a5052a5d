"""reshape(transpose(reshape(x))) that interleaves groups of channels => channel_shuffle(x), in the layout of x."""

from __future__ import annotations

import math
from dataclasses import replace

from evo_tvm.graph import Graph, Group, Op


def fold_shuffles(graph: Graph) -> Graph:
    """Makes one kernel of each shuffle of the channels of an image (Zhang et al., "ShuffleNet", CVPR 2018)."""
    producers, consumers = graph.producers(), graph.consumers()
    gone: set[int] = set()
    made: dict[int, Group] = {}
    for group in graph.groups:
        permute = producers.get(group.inputs[0]) if group.anchor.kind == "view" else None
        if permute is None or not permute.is_only("permute"):
            continue
        view = producers.get(permute.inputs[0])
        if view is None or view.anchor.kind != "view":
            continue
        source, names = view.inputs[0], (view.output, permute.output)
        if any(len(consumers[name]) > 1 or name in graph.outputs for name in names):
            continue
        shapes = graph.values[source].shape, graph.values[view.output].shape, graph.values[group.output].shape
        groups = _groups(*shapes, permute.anchor.attrs["axes"])
        if groups is not None and graph.values[source].data is None:
            shuffle = Op("channel_shuffle", (0,), {"groups": groups})
            made[id(group)] = replace(group, inputs=(source,), ops=(shuffle,))
            gone |= {id(view), id(permute)}
    return graph.with_groups([made.get(id(g), g) for g in graph.groups if id(g) not in gone])


def _groups(
    source: tuple[int, ...], seen: tuple[int, ...], result: tuple[int, ...], axes: tuple[int, ...]
) -> int | None:
    """How many groups of channels are interleaved; None where the transpose does something else."""
    moved = [i for i, a in enumerate(axes) if i != a]
    if len(source) != 4 or source != result or len(moved) != 2 or moved[1] != moved[0] + 1:
        return None
    first = moved[0]
    if math.prod(seen[:first]) != source[0] or seen[first] * seen[first + 1] != source[1]:
        return None
    return seen[first]
