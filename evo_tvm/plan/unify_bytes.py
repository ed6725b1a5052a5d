"""int8 (zero point z) => uint8 (zero point z + 128): the same numbers, in the one form that integer kernels read."""

from __future__ import annotations

from dataclasses import replace

from evo_tvm.graph import Graph, Group

_SHIFT = 128


def unify_bytes(graph: Graph) -> Graph:
    """Activations that are only quantized and dequantized; inputs, outputs, what others read stay as they are."""
    producers, consumers = graph.producers(), graph.consumers()
    shifted = {
        name
        for name, value in graph.values.items()
        if value.dtype == "int8" and value.data is None and name not in graph.outputs
        if name in producers and _is(producers[name], "quantize") and all(_is(g, "dequantize") for g in consumers[name])
    }
    values = {name: replace(graph.values[name], dtype="uint8") for name in shifted}
    return graph.with_groups([_shift(group, shifted) for group in graph.groups], **values)


def _is(group: Group, kind: str) -> bool:
    return len(group.ops) == 1 and group.anchor.kind == kind


def _shift(group: Group, shifted: set[str]) -> Group:
    if not shifted & {*group.inputs, *group.outputs}:
        return group
    attrs = {**group.anchor.attrs, "zero_point": group.anchor.attrs["zero_point"] + _SHIFT}
    if group.anchor.kind == "quantize":
        attrs["dtype"] = "uint8"
    return replace(group, ops=(replace(group.anchor, attrs=attrs),))
