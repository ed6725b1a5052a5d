"""conv2d_1x1(activation(depthwise_conv2d(x))) => depthwise_pointwise(x), where the tensor between them is large.

What a depthwise convolution writes is read once, by the 1x1 convolution behind it; together they keep it in cache. The
log decides where it has all three kernels, else the predictor where it knows them, else the size of the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from evo_tvm.decide import Decision, decide
from evo_tvm.graph import Graph, Group, Op, Value
from evo_tvm.kernels.elementwise import FINITE
from evo_tvm.predict.rank import Ranking
from evo_tvm.target import Target
from evo_tvm.tune.log import Log
from evo_tvm.workload import workload_of

#: On smaller images a band of rows is too few pixels for a register tile of the 1x1 convolution.
_LEAST_PIXELS = 400


def fuse_depthwise_pointwise(
    graph: Graph, target: Target, num_threads: int, log: Log, ranking: Ranking | None = None
) -> Graph:
    """Joins the pairs that gain by it, under the name of the 1x1 convolution."""
    producers, consumers = graph.producers(), graph.consumers()
    joined: dict[str, Group] = {}
    gone: set[str] = set()
    for second in graph.groups:
        first = producers.get(second.inputs[0]) if second.anchor.kind == "conv2d" else None
        if first is None or not _fits(graph, first, second, consumers):
            continue
        group = _join(graph, first, second)
        if group is not None and _pays(graph, (first, second, group), target, num_threads, log, ranking):
            joined[second.output] = group
            gone.add(first.output)
    return graph.with_groups([joined.get(g.outputs[0], g) for g in graph.groups if g.outputs[0] not in gone])


def _fits(graph: Graph, first: Group, second: Group, consumers: Mapping[str, list[Group]]) -> bool:
    """A depthwise convolution in float, read by nobody but a plain 1x1 convolution, whose result is not gated by tiles:
    these are computed by plain convolutions."""
    attrs = second.anchor.attrs
    return (
        first.anchor.kind == "depthwise_conv2d"
        and graph.values[first.inputs[0]].dtype == graph.values[first.output].dtype == "float32"
        and len(consumers[first.output]) == 1
        and first.output not in graph.outputs
        and all(reader.anchor.kind != "select_tiles" for reader in consumers.get(second.output, ()))
        and graph.values[second.inputs[second.anchor.args[1]]].shape[2:] == (1, 1)
        and (attrs["stride"], attrs["padding"], attrs["groups"]) == ((1, 1), (0, 0, 0, 0), 1)
    )


def _join(graph: Graph, first: Group, second: Group) -> Group | None:
    """The two as one group; None if what lies between them cannot be computed on the way."""
    inputs = [first.inputs[a] for a in first.anchor.args] + [second.inputs[second.anchor.args[1]]]
    between: list[tuple[str, Mapping[str, Any], int | None]] = []
    for place, op in enumerate(first.ops[1:]):
        before = len(first.inputs) + place
        others = [a for a in op.args if a != before]
        if op.args[0] != before or len(others) > 1 or op.kind not in FINITE:
            return None
        index = None
        if others:
            name = first.inputs[others[0]] if others[0] < len(first.inputs) else ""
            if not name or not _per_channel(graph.values[name], graph.values[first.output].shape[1]):
                return None
            index = len(inputs)
            inputs.append(name)
        between.append((op.kind, op.attrs, index))
    kept = [name for name in second.inputs if name not in (first.output, inputs[2])]
    numbers = {name: len(inputs) + i for i, name in enumerate(kept)}
    total = len(inputs) + len(kept)

    def place_of(argument: int) -> int:
        if argument >= len(second.inputs):
            return argument - len(second.inputs) + total
        return numbers[second.inputs[argument]]

    attrs = {name: first.anchor.attrs[name] for name in ("stride", "padding", "dilation")}
    blocks = second.anchor.attrs.get("blocks") or first.anchor.attrs.get("blocks")
    if blocks is not None:
        attrs["blocks"] = blocks
    anchor = Op("depthwise_pointwise", (0, 1, 2), {**attrs, "between": tuple(between)})
    epilogue = tuple(Op(op.kind, tuple(map(place_of, op.args)), op.attrs) for op in second.ops[1:])
    return Group(second.name, (*inputs, *kept), second.outputs, (anchor, *epilogue))


def _per_channel(value: Value, channels: int) -> bool:
    """A constant with one element, or one for each channel."""
    shape = (1,) * (4 - len(value.shape)) + value.shape
    return value.data is not None and (value.size == 1 or shape == (1, channels, 1, 1))


def _pays(
    graph: Graph,
    groups: tuple[Group, Group, Group],
    target: Target,
    num_threads: int,
    log: Log,
    ranking: Ranking | None,
) -> bool:
    """groups: the two, and both as one."""
    decisions = [decide(workload_of(graph, g), target, num_threads, log, ranking=ranking) for g in groups]
    for sources in (("log",), ("log", "predictor")):
        times = [_time_ms(decision, sources) for decision in decisions]
        if None not in times:
            return times[2] < times[0] + times[1]  # type: ignore[operator]
    hidden = graph.values[groups[0].output].shape
    return math.prod(hidden) * 4 > target.l2_bytes // 2 and math.prod(hidden[2:]) >= _LEAST_PIXELS


def _time_ms(decision: Decision, sources: tuple[str, ...]) -> float | None:
    """The time of the algorithm that was decided for, if it is from one of these sources."""
    taken = decision.taken
    return taken.latency_ms if taken is not None and taken.source in sources else None
