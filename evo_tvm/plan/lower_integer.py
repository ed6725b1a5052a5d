"""conv2d(dequantize(x), w) + b => rescale(conv2d(x, codes of w) + codes of b): sums of integers, exact.

    sum (x - z) s * w t + b = s t (sum x w + round(b / (s t)) - z sum w)        (Jacob et al., 2018)

x: bytes, s and z their scale and zero point; w: bytes around zero, t a scale for each output channel. What stands for
zero in x lies around its image as padding. Also depthwise convolution and dense layers; a mean of bytes stands for the
mean.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

import numpy as np

from evo_tvm.algorithms import refusals
from evo_tvm.graph import Codes, Graph, Group, Op, Value
from evo_tvm.runtime.manifest import StayedFloat
from evo_tvm.target import Target
from evo_tvm.workload import workload_of

#: Operators whose weights are their second operand => the axis of output channels: in the weights, in the result.
_LAYERS = {"conv2d": (0, 1), "depthwise_conv2d": (0, 1), "dense": (1, -1)}
#: Operators that give means, of bytes too.
MEANS = ("avg_pool2d", "global_avg_pool2d")
_LARGEST_INT32 = 2**31 - 1
#: Why a layer is in float that could be in integers.
FASTER = "in float it is faster, or makes its neighbours so"


def integer_layers(graph: Graph) -> tuple[str, ...]:
    """Names of the layers that read integers, and whose weights are integers."""
    producers = graph.producers()
    found = []
    for group in graph.groups:
        if len(group.ops) == 1 and group.anchor.kind in _LAYERS and graph.values[group.inputs[1]].codes is not None:
            before = producers.get(group.inputs[0])
            if before is not None and before.anchor.kind == "dequantize":
                found.append(group.name)
    return tuple(found)


def lower_integer(
    graph: Graph, target: Target, float_layers: Set[str] = frozenset()
) -> tuple[Graph, tuple[StayedFloat, ...]]:
    """Rewrites what fits, except for `float_layers`; says of other layers of these operators why they stay in float."""
    stayed = []
    for group in graph.groups:
        if len(group.ops) != 1 or group.anchor.kind not in (*_LAYERS, *MEANS):
            continue
        if group.name in float_layers:
            stayed.append(StayedFloat(group.name, group.anchor.kind, FASTER))
            continue
        before = graph.producers().get(group.inputs[0])
        if before is None or before.anchor.kind != "dequantize":
            continue
        rewrite = _layer if group.anchor.kind in _LAYERS else _mean
        found = rewrite(graph, group, before, target)
        if isinstance(found, str):
            stayed.append(StayedFloat(group.name, group.anchor.kind, found))
        else:
            graph = found
    return graph, tuple(stayed)


def _layer(graph: Graph, group: Group, dequantize: Group, target: Target) -> Graph | str:
    """The graph with integer sums instead, or why not."""
    x, weight, out = (graph.values[n] for n in (dequantize.inputs[0], group.inputs[1], group.output))
    axis, place = _LAYERS[group.anchor.kind]
    signed = _signed(weight.codes)
    if x.dtype != "uint8":
        return f"its input is {x.dtype}"
    if isinstance(signed, str):
        return signed
    if signed.scale.size > 1 and signed.axis != axis:
        return "its weights have several scales for one output channel"
    scale, zero = float(dequantize.anchor.attrs["scale"]), int(dequantize.anchor.attrs["zero_point"])
    if any(g.anchor.kind == "dequantize" and g.anchor.attrs["zero_point"] != zero for g in graph.consumers()[x.name]):
        return "its input is read with several zero points"
    channels = weight.shape[axis]
    terms = tuple(a for a in range(len(weight.shape)) if a != axis)
    step = scale * np.broadcast_to(signed.scale.astype(np.float64).reshape(-1), (channels,))
    if not np.all(step > 0):
        return "a scale of its weights is not positive"
    shape = tuple(channels if a == place % len(out.shape) else 1 for a in range(len(out.shape)))
    add = _bias_after(graph, group, shape)
    bias = np.zeros(channels) if add is None else _constant(graph, add).data.reshape(-1)  # type: ignore[union-attr]
    start = np.rint(bias / step) - zero * signed.codes.sum(axis=terms, dtype=np.int64)
    largest = np.abs(start) + 255 * np.abs(signed.codes.astype(np.int64)).sum(axis=terms)
    if largest.max() > _LARGEST_INT32:
        return "its sums may not fit 32 bits"

    name = group.name
    end = group if add is None else add
    values = {
        v.name: v
        for v in (
            Value(f"{name}@weight", weight.shape, "int8", signed.codes),
            Value(f"{name}@bias", shape, "int32", start.astype(np.int32).reshape(shape)),
            Value(f"{name}@scale", shape, "float32", step.astype(np.float32).reshape(shape)),
            Value(f"{name}@sum", out.shape, "int32"),
            Value(f"{name}@biased", out.shape, "int32"),
            replace(x, zero=zero),
        )
    }
    sums = Group(name, (x.name, f"{name}@weight"), (f"{name}@sum",), (replace(group.anchor, args=(0, 1)),))
    candidate = graph.with_groups([g for g in graph.groups if g is not group] + [sums], **values)
    refused = refusals(workload_of(candidate, sums), target)
    if all(refused.values()):
        return "; ".join(f"{algorithm}: {reason}" for algorithm, reason in refused.items())
    made = [
        sums,
        Group(name, (f"{name}@sum", f"{name}@bias"), (f"{name}@biased",), (Op("add", (0, 1)),)),
        Group(name, (f"{name}@biased", f"{name}@scale"), end.outputs, (Op("rescale", (0, 1)),)),
    ]
    return _replaced(graph, group, made, drop=add, values=values)


def _mean(graph: Graph, group: Group, dequantize: Group, target: Target) -> Graph | str:
    """The mean of the bytes, of which scale and zero point are taken afterwards."""
    x, out = graph.values[dequantize.inputs[0]], graph.values[group.output]
    attrs = group.anchor.attrs
    if x.dtype != "uint8":
        return f"its input is {x.dtype}"
    if attrs.get("count_include_pad") and any(attrs["padding"]) and dequantize.anchor.attrs["zero_point"] != 0:
        return "it counts padding, which is not the byte 0"
    mean = Value(f"{group.output}@mean", out.shape, "float32")
    made = [
        Group(group.name, (x.name,), (mean.name,), group.ops),
        Group(group.name, (mean.name,), group.outputs, dequantize.ops),
    ]
    return _replaced(graph, group, made, drop=None, values={mean.name: mean})


def _signed(codes: Codes | None) -> Codes | str:
    """Weights as int8 around zero, or why they are not."""
    if codes is None:
        return "its weights are float"
    middle = {"int8": 0, "uint8": 128}.get(str(codes.codes.dtype))
    if middle is None:
        return f"its weights are {codes.codes.dtype}"
    if np.any(codes.zero_point.astype(np.int32) != middle):
        return "its weights are asymmetric: their zero point is not the middle of their range"
    return replace(codes, codes=(codes.codes.astype(np.int16) - middle).astype(np.int8))


def _bias_after(graph: Graph, group: Group, shape: tuple[int, ...]) -> Group | None:
    """The addition of a constant of `shape`, one number for each channel, that alone reads the group's result."""
    readers = graph.consumers()[group.output]
    if len(readers) != 1 or group.output in graph.outputs:
        return None
    (add,) = readers
    if not add.is_only("add"):
        return None
    bias = _constant(graph, add)
    return add if bias is not None and (1,) * (len(shape) - len(bias.shape)) + bias.shape == shape else None


def _constant(graph: Graph, add: Group) -> Value | None:
    """The operand whose elements are known."""
    return next((graph.values[name] for name in add.inputs if graph.values[name].data is not None), None)


def _replaced(graph: Graph, group: Group, made: list[Group], drop: Group | None, values: dict[str, Value]) -> Graph:
    def put(g: Group) -> list[Group]:
        return made if g is group else [] if g is drop else [g]

    return graph.with_groups([new for g in graph.groups for new in put(g)], **values)
