"""Convolutions under a mask of channels: register tiles of no more channels than share a decision.

Only tiles change: each sum is added up in the order in which it is without a mask, and comes out bit for bit the same.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from evo_tvm.algorithms._register_tile import register_tile
from evo_tvm.graph import Graph, Group
from evo_tvm.kernels.winograd import F2, F4
from evo_tvm.schedules import spatial_pack, winograd
from evo_tvm.target import Target


def narrow_tiles(graph: Graph, target: Target) -> Graph:
    """Gives groups that keep some channels only a configuration whose tiles hold one block of them, or one decision."""
    return graph.with_groups([_narrow(graph, group, target) for group in graph.groups])


def _narrow(graph: Graph, group: Group, target: Target) -> Group:
    config: Any = group.anchor.attrs.get("config")
    channels = [op.attrs["channels"] for op in group.ops if op.kind == "keep"]
    if not channels or not hasattr(config, "oc_tile"):
        return group
    _, _, height, width = graph.values[group.output].shape
    whole = channels[0] % (config.oc_tile * target.lanes_f32) == 0
    if whole and not getattr(config, "depth_outer", False):
        return group
    if isinstance(config, winograd.Config):
        m = {"winograd2": F2.m, "winograd4": F4.m}[group.anchor.attrs["algorithm"]]
        down, columns = math.ceil(height / m), math.ceil(width / m)
        # One block of channels needs more tiles of the image to fill the registers.
        rows = min(down, max(config.group_rows, target.vector_registers * 3 // 4 // columns + 1))
        _, i, j = register_tile(1, rows, columns, target.vector_registers, whole=True)
        config = replace(config, group_rows=rows, oc_tile=1, row_tile=i, column_tile=j)
    elif isinstance(config, spatial_pack.Config):
        _, i, j = register_tile(1, config.group_rows or height, width, target.vector_registers)
        config = replace(config, oc_tile=1, oh_tile=i, ow_tile=j, depth_outer=False)
    else:
        config = replace(config, oc_tile=1)
    anchor = replace(group.anchor, attrs={**group.anchor.attrs, "config": config})
    return replace(group, ops=(anchor, *group.ops[1:]))
