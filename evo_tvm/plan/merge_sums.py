"""quantize(dequantize(a) + dequantize(b)) => quantize(blend(a, b), 1): two multiply-adds on the bytes as they are.

    z + (s (a - x) + t (b - y)) / u = (s / u) a + ((t / u) b + (z - x s / u - y t / u))

rounded in the order in which ONNX Runtime rounds it, so that the results are the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from evo_tvm.graph import Graph, Group, Op


def merge_sums(graph: Graph) -> Graph:
    """Where nothing else reads the sum, and a vector of it is one of both operands."""
    consumers, producers = graph.consumers(), graph.producers()
    changed = {}
    for group in graph.groups:
        if not group.is_only("quantize") or group.anchor.attrs["dtype"] != "uint8":
            continue
        add = producers.get(group.inputs[0])
        if add is None or not add.is_only("add") or len(consumers[add.output]) > 1:
            continue
        operands = [producers.get(add.inputs[a]) for a in add.anchor.args]
        if add.output in graph.outputs or not all(_converts(operand, graph) for operand in operands):
            continue
        left, right = (operand.anchor.attrs for operand in operands if operand is not None)
        blend = Op("blend", add.anchor.args, _factors(left, right, group.anchor.attrs))
        bytes_of = {o.output: o.inputs[0] for o in operands if o is not None}
        changed[id(add)] = replace(add, inputs=tuple(bytes_of[name] for name in add.inputs), ops=(blend,))
        as_it_is = {"scale": 1.0, "zero_point": 0, "dtype": "uint8"}
        changed[id(group)] = replace(group, ops=(Op("quantize", (0,), as_it_is),))
    groups = [changed.get(id(group), group) for group in graph.groups]
    return graph.with_groups(groups).without_unread({"dequantize"})


def _converts(group: Group | None, graph: Graph) -> bool:
    return group is not None and group.is_only("dequantize") and graph.values[group.inputs[0]].dtype == "uint8"


def _factors(left: Mapping[str, Any], right: Mapping[str, Any], result: Mapping[str, Any]) -> Mapping[str, float]:
    """What both are multiplied by, and what is added."""
    scales = [np.float32(attrs["scale"]) / np.float32(result["scale"]) for attrs in (left, right)]
    zeros = [np.float32(attrs["zero_point"]) for attrs in (left, right)]
    shift = np.float32(float(scales[0]) * float(zeros[0]) + float(scales[1] * zeros[1]))
    return {
        "left": float(scales[0]),
        "right": float(scales[1]),
        "start": float(np.float32(result["zero_point"]) - shift),
    }
