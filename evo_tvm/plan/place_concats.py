"""concat(a, b) => a and b written side by side from the start, so that the concatenation costs nothing.

In a blocked layout with batch 1 the channels of a concatenation lie one after the other, and with larger batches at a
fixed stride. A value can be written there if its kernel can (`PLACEABLE`), if its channels fill whole blocks and if no
other concatenation has claimed it; any other is copied there by a "transform" kernel.
"""

from __future__ import annotations

from dataclasses import replace

from evo_tvm.graph import Graph, Group, Layout, Op, Part, Value
from evo_tvm.plan.assign_layouts import PLACEABLE, copy_bordered_views


def place_concats(graph: Graph) -> Graph:
    """Fills `Graph.parts`; concatenations of plain tensors stay kernels ("concat" becomes "join" where it is none)."""
    values, parts = dict(graph.values), dict(graph.parts)
    producers = graph.producers()
    viewed = {g.inputs[0] for g in graph.groups if g.anchor.kind == "view"}  # a view begins where its storage does
    groups: list[Group] = []
    for group in graph.groups:
        whole = values[group.output] if group.anchor.kind == "concat" else None
        if whole is None or whole.layout.block == 1:
            groups.append(group)
            continue
        inputs, channel = [], 0
        for name in group.inputs:
            producer = producers.get(name)
            if producer is None or producer.anchor.kind not in PLACEABLE or name in parts or name in viewed:
                copy = f"{name}@{whole.name}.{channel}"
                values[copy] = replace(values[name], name=copy, layout=Layout(whole.layout.block))
                groups.append(Group(copy, (name,), (copy,), (Op("transform", (0,)),)))
                name = copy
            parts[name] = Part(whole.name, channel)
            channel += values[name].shape[1]
            inputs.append(name)
        groups.append(replace(group, inputs=tuple(inputs), ops=(replace(group.anchor, kind="join"),)))
    share_halos(values, parts)
    return replace(graph, parts=parts).with_groups(copy_bordered_views(groups, values), **values)


def share_halos(values: dict[str, Value], parts: dict[str, Part]) -> None:
    """Gives a whole and its parts one border, wide enough for all of them."""
    changed = True
    while changed:
        changed = False
        for name, part in parts.items():
            a, b = values[name].layout, values[part.whole].layout
            widest = tuple(max(x, y) for x, y in zip(a.halo, b.halo, strict=True))
            for key, layout in ((name, a), (part.whole, b)):
                if layout.halo != widest:
                    values[key] = replace(values[key], layout=replace(layout, halo=widest))  # type: ignore[arg-type]
                    changed = True
