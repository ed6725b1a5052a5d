"""conv2d => conv2d with attribute "algorithm": direct, or Winograd where the fewer multiplications pay for the rest.

The choice comes before the layouts, since Winograd's whole tiles reach further beyond the image than its padding.
"""

from __future__ import annotations

import math
from dataclasses import replace

from evo_tvm.graph import Graph, Group, Value
from evo_tvm.kernels.winograd import F4
from evo_tvm.target import Target

#: What a core reads from memory beyond its caches, and from its second cache, in bytes a cycle.
_MEMORY, _CACHE = 4.0, 16.0
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


def winograd_fits(attrs: dict[str, object], data: Value, weight: Value, lanes: int) -> bool:  # type: ignore[type-arg]
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

    def read(elements: int) -> float:
        rate = _MEMORY if elements * 4 > target.l2_bytes // 2 else _CACHE
        return elements * 4 / rate

    direct = steps * 9 * n * height * width / _DIRECT_SHARE + read(9 * ic * oc) / 2
    product = steps * size * size * tiles / _PRODUCT_SHARE + read(size * size * ic * oc)
    transforms = tiles * (ic * _INPUT_TILE + oc * _OUTPUT_TILE) / lanes
    return product + transforms < _WORTH * direct
