"""q -> dequantize -> kernel's epilogue => q -> kernel, which converts as it reads.

So a value that several kernels read lies in memory as bytes only.
"""

from __future__ import annotations

from dataclasses import replace

from evo_tvm.graph import Graph, Group, Op
from evo_tvm.kernels.elementwise import EXPRESSIONS


def inline_dequantize(graph: Graph) -> Graph:
    """Every elementwise stage reads bytes where there are any; conversions that nobody reads any more are dropped."""
    conversions = {group.output: group for group in graph.groups if group.is_only("dequantize")}
    groups = [group if group.output in conversions else _inlined(group, conversions) for group in graph.groups]
    return graph.with_groups(groups).without_unread({"dequantize"})


def _inlined(group: Group, conversions: dict[str, Group]) -> Group:
    if group.anchor.kind == "tir":
        return group
    first = 0 if group.anchor.kind in EXPRESSIONS else 1
    for index, name in enumerate(group.inputs):
        read = any(index in op.args for op in group.ops[first:])
        if name in conversions and read and not (first and index in group.anchor.args):
            group = _read_bytes(group, index, conversions[name], first)
    return group


def _read_bytes(group: Group, index: int, conversion: Group, place: int) -> Group:
    """The group with input `index` as bytes, and the conversion as its operator number `place`."""
    count = len(group.inputs)

    def moved(arg: int) -> int:
        if arg == index:
            return count + place
        return arg + 1 if arg >= count + place else arg

    ops = [replace(op, args=tuple(map(moved, op.args))) for op in group.ops]
    ops.insert(place, Op("dequantize", (index,), conversion.anchor.attrs))
    inputs = list(group.inputs)
    inputs[index] = conversion.inputs[0]
    return replace(group, inputs=tuple(inputs), ops=tuple(ops))
