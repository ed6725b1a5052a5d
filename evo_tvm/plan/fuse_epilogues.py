"""kernel(x); y = elementwise(kernel(x), z) => one kernel with the elementwise operators as its epilogue."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from evo_tvm.graph import Graph, Group, Op
from evo_tvm.kernels.elementwise import EXPRESSIONS

#: Anchors whose kernels end in an elementwise stage.
FUSABLE = frozenset(
    {
        "conv2d",
        "conv2d_transpose",
        "depthwise_conv2d",
        "dense",
        "layer_norm",
        "matmul",
        "max_pool2d",
        "avg_pool2d",
        "channel_slice",
        "global_avg_pool2d",
        "permute",
        "softmax",
        "upsample",
    }
)


def fuse_epilogues(graph: Graph) -> Graph:
    """Moves each elementwise operator into the kernel that feeds it, where that kernel's result has no other reader.

    An operator fed by two such kernels (a residual addition) joins the one that runs last, so that the other's result
    is there when it runs. Repeated until nothing moves, since `x * sigmoid(x)` first has to become one operator.
    """
    while True:
        fused = _fuse_once(graph)
        if len(fused.groups) == len(graph.groups):
            return fused
        graph = fused


def _fuse_once(graph: Graph) -> Graph:
    consumers = graph.consumers()
    groups: list[Group | None] = list(graph.groups)
    place = {name: i for i, g in enumerate(graph.groups) for name in g.outputs}  # where a value is made now
    for here, group in enumerate(graph.groups):
        if group.anchor.kind not in EXPRESSIONS or _wanted_as_bytes(group, consumers):
            continue
        shape = graph.values[group.output].shape
        feeders = []
        for name in dict.fromkeys(group.inputs):
            at = place.get(name)
            feeder = groups[at] if at is not None else None
            if (
                at is not None
                and feeder is not None
                and _ends_elementwise(feeder)
                and len({id(c) for c in consumers[name]}) == 1
                and name not in graph.outputs
                and graph.values[name].shape == shape
                and all(_operand_fits(feeder, graph.values[n].shape, shape) for n in group.inputs)
            ):
                feeders.append((feeder.anchor.kind in FUSABLE, at, name))
        if not feeders:
            continue
        _, at, name = max(feeders)
        feeder = groups[at]
        assert feeder is not None
        groups[at], groups[here] = None, _join(feeder, groups[here] or group, name)
        place[group.output] = here
    return graph.with_groups([g for g in groups if g is not None])


def _wanted_as_bytes(group: Group, consumers: Mapping[str, list[Group]]) -> bool:
    """Whether it converts bytes for several readers, each of which does that as it reads (`inline_dequantize`)."""
    return group.anchor.kind == "dequantize" and len(consumers[group.output]) > 1


def _ends_elementwise(group: Group) -> bool:
    return group.anchor.kind in FUSABLE or group.anchor.kind in EXPRESSIONS


def _operand_fits(feeder: Group, operand: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether the feeder's output stage can read such an operand: dense kernels work on a matrix of rows."""
    if feeder.anchor.kind != "dense":
        return True
    return operand == shape or math.prod(operand) in (1, operand[-1] if operand[-1:] == shape[-1:] else 1)


def _join(first: Group, second: Group, link: str) -> Group:
    """`second` appended to `first`, whose result `link` it reads."""
    inputs = list(first.inputs) + [n for n in second.inputs if n != link and n not in first.inputs]
    shift = len(inputs) - len(first.inputs)
    ops = [_renumber(op, lambda a: a if a < len(first.inputs) else a + shift) for op in first.ops]
    result = len(inputs) + len(ops) - 1

    def place(a: int) -> int:
        if a >= len(second.inputs):
            return a - len(second.inputs) + result + 1
        return result if second.inputs[a] == link else inputs.index(second.inputs[a])

    ops += [_renumber(op, place) for op in second.ops]
    return Group(first.name, tuple(inputs), second.outputs, tuple(ops))


def _renumber(op: Op, place: Callable[[int], int]) -> Op:
    return Op(op.kind, tuple(place(a) for a in op.args), op.attrs)
