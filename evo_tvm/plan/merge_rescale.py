"""quantize(rescale(sums, a), s) => quantize(rescale(sums, a / s), 1): one multiplication instead of two."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from evo_tvm.graph import Graph, Group, Op


def merge_rescale(graph: Graph) -> Graph:
    """Where nothing else reads what the sums stand for."""
    consumers, producers = graph.consumers(), graph.producers()
    values, changed = dict(graph.values), {}
    for group in graph.groups:
        before = producers.get(group.inputs[0]) if group.inputs else None
        if before is None or (group.anchor.kind, before.anchor.kind) != ("quantize", "rescale"):
            continue
        if len(group.ops) + len(before.ops) > 2 or len(consumers[before.output]) > 1 or before.output in graph.outputs:
            continue
        factor = values[before.inputs[1]]
        assert factor.data is not None
        name, attrs = f"{group.output}@scale", group.anchor.attrs
        data = (factor.data.astype(np.float64) / attrs["scale"]).astype(np.float32)
        values[name] = replace(factor, name=name, data=data)
        changed[id(before)] = replace(before, inputs=(before.inputs[0], name))
        changed[id(group)] = replace(group, ops=(Op("quantize", (0,), {**attrs, "scale": 1.0}),))
    groups: list[Group] = [changed.get(id(group), group) for group in graph.groups]
    return graph.with_groups(groups, **values)
