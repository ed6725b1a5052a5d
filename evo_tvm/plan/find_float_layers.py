"""Integer-lowered graph => every layer that is still computed in float, and why, where the model is quantized."""

from __future__ import annotations

from collections.abc import Sequence

from evo_tvm.graph import Graph
from evo_tvm.runtime.manifest import StayedFloat

_QUANTIZED = frozenset(("dequantize", "quantize", "rescale"))
#: Operators that multiply and add; "matmul": both operands are activations.
_LAYERS = frozenset(("conv2d", "conv2d_transpose", "dense", "depthwise_conv2d", "matmul"))


def find_float_layers(graph: Graph, known: Sequence[StayedFloat]) -> tuple[StayedFloat, ...]:
    """In the order of the graph. known: what `lower_integer` says of layers that read integers.

    Nothing is listed of a model that has neither quantized values nor weights in integers.
    """
    if not any(op.kind in _QUANTIZED for group in graph.groups for op in group.ops) and not any(
        value.codes is not None for value in graph.values.values()
    ):
        return ()
    producers, said = graph.producers(), {(layer.layer, layer.operator): layer for layer in known}
    found = []
    for group in graph.groups:
        kind = group.anchor.kind
        if (group.name, kind) in said:
            found.append(said[group.name, kind])
        elif kind in _LAYERS and graph.values[group.inputs[0]].dtype == "float32":
            before = producers.get(group.inputs[0])
            quantized = before is not None and before.anchor.kind == "dequantize"
            reason = "there is no integer kernel of this operator" if quantized else "its input is float"
            found.append(StayedFloat(group.name, kind, reason))
    return tuple(found)
