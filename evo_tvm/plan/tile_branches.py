"""select_tiles(d, conv(x), y) => conv(x) with `tiled`: computed tile by tile where d is on, and so what only it needs.

A convolution further back is computed with a margin of as many pixels around each tile as those behind it read, so that
tiles that are on are what they are in the whole image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from evo_tvm.algorithms import ALGORITHMS
from evo_tvm.errors import CompileError
from evo_tvm.graph import Graph, Group, Op, Tiled, TileKernel, Value
from evo_tvm.workload import Workload, workload_of

#: Workload, algorithm -> configuration.
Configure = Callable[[Workload, str], Any]

#: Convolutions that can be computed in rectangles.
_TILED = ("conv2d", "depthwise_conv2d")
#: Tiles, down and across, that one call may compute, the most first: few calls read the weights few times.
RECTANGLES = ((2, 4), (4, 2), (2, 2), (1, 2), (2, 1), (1, 1))


def tile_branches(graph: Graph, configure: Configure) -> Graph:
    """Marks the groups that select_tiles gates; configure: how rectangles of tiles are computed.

    Raises CompileError: there is no convolution to gate.
    """
    producers, consumers = graph.producers(), graph.consumers()
    places = {name: i for i, group in enumerate(graph.groups) for name in group.outputs}
    marked: dict[str, Group] = {}
    for select in graph.groups:
        if select.anchor.kind != "select_tiles":
            continue
        decisions, name = (select.inputs[a] for a in select.anchor.args[:2])
        margin, reader = 0, select
        while True:
            group = producers.get(name)
            alone = group is not None and [g.output for g in consumers[name]] == [reader.output]
            if group is None or not alone or name in graph.outputs or places[decisions] > places[name]:
                break
            if not _fits(graph, group, margin):
                break
            tiled = Tiled(decisions, select.anchor.attrs["side"], margin)
            marked[name] = _with_kernels(graph, replace(group, tiled=tiled), configure)
            attrs = group.anchor.attrs
            if tuple(attrs["stride"]) != (1, 1):
                break
            reader, name = group, group.inputs[group.anchor.args[0]]
            margin += max(attrs["padding"])
        if reader is select and name not in marked:
            raise CompileError(
                "its tiles cannot be computed one by one: no convolution gives it, with what is fused behind it",
                where=select.output,
                hint="Gate the value behind the convolution's activation.",
            )
    return graph.with_groups([marked.get(g.outputs[0], g) for g in graph.groups])


def _fits(graph: Graph, group: Group, margin: int) -> bool:
    """A convolution whose input is as many times larger than its output as its stride says, of one image."""
    anchor = group.anchor
    if anchor.kind not in _TILED:
        return False
    data, out = graph.values[group.inputs[anchor.args[0]]], graph.values[group.output]
    sizes = zip(data.shape[2:], out.shape[2:], anchor.attrs["stride"], strict=True)
    others = [graph.values[group.inputs[a]] for op in group.ops[1:] for a in op.args if a < len(group.inputs)]
    plain = all(v.data is not None or v.shape == out.shape for v in others)
    whole = all(v.data is None or v.size in (1, out.shape[1]) for v in others)
    whole_lanes = data.shape[1] > 4 and out.dtype == data.dtype == "float32"
    return all(i == o * s for i, o, s in sizes) and out.shape[0] == 1 and plain and whole and whole_lanes


def rectangle(group: Group, shape: tuple[int, ...], down: int, across: int) -> tuple[int, int]:
    """Rows and columns that the group computes for so many tiles."""
    assert group.tiled is not None
    side, margin = group.tiled.side, group.tiled.margin
    return min(down * side + 2 * margin, shape[2]), min(across * side + 2 * margin, shape[3])


def _with_kernels(graph: Graph, group: Group, configure: Configure) -> Group:
    """The group with a kernel for each of its rectangles."""
    assert group.tiled is not None
    kernels = []
    for down, across in rectangles(group, graph.values[group.output].shape):
        workload = workload_of(*_part(graph, group, down, across))
        name = group.anchor.attrs["algorithm"]
        config = configure(workload, name)
        border = ALGORITHMS[group.anchor.kind][name].border(workload, config)
        kernels.append(TileKernel(down, across, config, border))
    return replace(group, tiled=replace(group.tiled, kernels=tuple(kernels)))


def rectangles(group: Group, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Which of `RECTANGLES` the image has; what would be all of it is computed by the group as it is."""
    assert group.tiled is not None
    rows, columns = shape[2] // group.tiled.side, shape[3] // group.tiled.side
    return [(a, b) for a, b in RECTANGLES if a <= rows and b <= columns and (a, b) != (rows, columns)]


def rectangle_group(graph: Graph, group: Group, kernel: TileKernel) -> tuple[Graph, Group]:
    """The group as it computes so many tiles at once, and a graph in which its values are as small."""
    small, part = _part(graph, group, kernel.down, kernel.across)
    attrs = {**group.anchor.attrs, "config": kernel.config, "border": kernel.border}
    return small, replace(part, ops=(Op(group.anchor.kind, group.anchor.args, attrs), *group.ops[1:]), tiled=None)


def _part(graph: Graph, group: Group, down: int, across: int) -> tuple[Graph, Group]:
    """A graph in which the group's values are as small as so many tiles, and the group."""
    anchor, out = group.anchor, graph.values[group.output]
    height, width = rectangle(group, out.shape, down, across)
    values: dict[str, Value] = dict(graph.values)
    data = values[group.inputs[anchor.args[0]]]
    rows, columns = (a * b for a, b in zip((height, width), anchor.attrs["stride"], strict=True))
    for name in (*group.inputs, group.output):
        if values[name].data is None and values[name].shape == out.shape:
            values[name] = replace(values[name], shape=(*out.shape[:2], height, width))
    values[data.name] = replace(data, shape=(*data.shape[:2], rows, columns))
    return replace(graph, values=values), group
