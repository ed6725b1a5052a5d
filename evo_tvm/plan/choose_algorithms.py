"""conv2d => conv2d with attribute "algorithm": direct, or Winograd where the fewer multiplications pay for the rest.

The choice comes before the layouts, since Winograd's whole tiles reach further beyond the image than its padding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evo_tvm.graph import Graph, Group, Value
from evo_tvm.kernels.winograd import F4
from evo_tvm.target import Target

#: What a core reads from memory, from the last cache and from its second cache, in bytes a cycle.
_MEMORY, _LAST_CACHE, _CACHE = 4.0, 6.0, 16.0
#: Share of the multiply-add peak that the kernels reach, and vector instructions a tile takes to transform.
_DIRECT_SHARE, _PRODUCT_SHARE, _INPUT_TILE, _OUTPUT_TILE = 0.9, 0.75, 220, 170
#: Winograd has to promise this much before it is worth its larger weights and its rounding.
_WORTH = 0.85


def choose_algorithms(graph: Graph, target: Target) -> Graph:
    """Marks each convolution "direct" or "winograd4"; `border` becomes what its kernel reads around the image."""
    return graph.with_groups([_choose(graph, group, target) for group in graph.groups])


def _choose(graph: Graph, group: Group, target: Target) -> Group:
    anchor = group.anchor
    if anchor.kind != "conv2d":
        return group
    data, weight = (graph.values[group.inputs[a]] for a in anchor.args)
    out = graph.values[group.output]
    algorithm, border = "direct", anchor.attrs["padding"]
    if winograd_fits(anchor.attrs, data, weight, target.lanes_f32) and winograd_pays(data, weight, out, target):
        algorithm = "winograd4"
        top, left, _, _ = border
        height, width = (math.ceil(e / F4.m) * F4.m + 2 for e in out.shape[2:])
        border = (top, left, height - top - data.shape[2], width - left - data.shape[3])
    attrs = {**anchor.attrs, "algorithm": algorithm, "border": border}
    return replace(group, ops=(replace(anchor, attrs=attrs), *group.ops[1:]))


def winograd_fits(attrs: Mapping[str, Any], data: Value, weight: Value, lanes: int) -> bool:
    """Whether F(4x4, 3x3) computes this convolution: 3x3, stride and dilation 1, one group, whole blocks."""
    plain = attrs["stride"] == (1, 1) and attrs["dilation"] == (1, 1) and attrs["groups"] == 1
    return bool(plain and weight.shape[2:] == (3, 3) and weight.shape[0] % lanes == 0 and weight.shape[1] % lanes == 0)


def winograd_pays(data: Value, weight: Value, out: Value, target: Target) -> bool:
    """Compares cycle counts of one core: arithmetic at the shares above, weights from memory, tiles transformed."""
    lanes = target.lanes_f32
    n, oc, height, width = out.shape
    ic, size = weight.shape[1], F4.m + 2
    tiles = n * math.ceil(height / F4.m) * math.ceil(width / F4.m)
    steps = oc / lanes * ic / 2  # cycles of one multiply-add for every pair of channels
    direct = steps * 9 * n * height * width / _DIRECT_SHARE + _read(9 * ic * oc * 4, target) / 2
    _, traffic = winograd_rows(ic, oc, out.shape, target, 1)
    product = steps * size * size * tiles / _PRODUCT_SHARE + traffic
    transforms = tiles * (ic * _INPUT_TILE + oc * _OUTPUT_TILE) / lanes
    return product + transforms < _WORTH * direct


def winograd_rows(ic: int, oc: int, out_shape: tuple[int, ...], target: Target, num_threads: int) -> tuple[int, float]:
    """(rows of tiles to transform together, cycles that reading weights and transformed tiles then takes).

    The weights are read once a group of rows, and the group's tiles once for every two blocks of output channels: more
    rows spare weights until the tiles overflow the second cache. There is a group for each thread at least.
    """
    n, _, height, width = out_shape
    down, across = math.ceil(height / F4.m), math.ceil(width / F4.m)
    weights_bytes = (F4.m + 2) ** 2 * ic * oc * 4
    row_bytes = (F4.m + 2) ** 2 * ic * across * 4

    def traffic(rows: int) -> float:
        groups, passes = n * math.ceil(down / rows), max(1.0, oc / target.lanes_f32 / 2)
        kept = rows * row_bytes <= target.l2_bytes * 6 // 10
        tiles = 0.0 if kept else groups * (passes + 2) * rows * row_bytes / _LAST_CACHE  # written, and read back
        again = _MEMORY if weights_bytes > target.l3_bytes // 2 else _LAST_CACHE
        again = _CACHE if weights_bytes <= target.l2_bytes // 2 else again
        return weights_bytes / _MEMORY + (groups - 1) * weights_bytes / again + tiles

    best = min(range(1, math.ceil(down / num_threads) + 1), key=traffic)
    return best, traffic(best)


def _read(size_bytes: int, target: Target) -> float:
    """Cycles to read that much, from the second cache where it fits half of it."""
    return size_bytes / (_MEMORY if size_bytes > target.l2_bytes // 2 else _CACHE)
