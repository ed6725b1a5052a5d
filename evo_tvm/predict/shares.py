"""Into how many equal shares a kernel's outermost loops can be cut: what threads have to go round.

As the schedules fuse their outer loops; one whose tiles do not divide it is peeled, and is not shared out.
"""

from __future__ import annotations

import math
from typing import Any

from evo_tvm.predict.geometry import Geometry
from evo_tvm.schedules.common import PARALLEL_WORK
from evo_tvm.target import Target
from evo_tvm.workload import Workload


def shares(workload: Workload, algorithm: str, config: Any, shape: Geometry, target: Target) -> int:
    """1: one thread does it all. config: the algorithm's, or None."""
    work = shape.vector_steps * target.lanes_f32 * (4 if workload.dtype == "uint8" else 1)
    if work < PARALLEL_WORK:
        return 1
    n = workload.output[0] if workload.output else 1
    height = workload.output[2] if len(workload.output) == 4 else 1
    o, i, _ = shape.tile
    channels = _whole(shape.blocks, o)
    if algorithm == "spatial_pack":
        return _spatial_pack(config, shape, n, channels)
    if algorithm.startswith("winograd"):
        groups = math.ceil(shape.images / n - 1e-9) * n
        return channels if config.by_channels else groups
    if algorithm == "indirect":
        return n * channels
    if algorithm == "im2col":
        return n * _whole(shape.width, min(config.pixel_tile * config.tiles, shape.width))
    if algorithm == "depthwise_pointwise":
        return n * _whole(height, min(config.rows, height))
    if algorithm == "grouped_lanewise":
        return n * shape.blocks * _whole(height, min(config.rows, height))
    if algorithm == "grouped_windowed":
        return n * shape.blocks * _whole(height, i)
    if algorithm in ("depthwise", "depthwise_dot", "pool"):
        return n * shape.blocks * math.ceil(height / i)
    if algorithm == "transposed":
        return n * channels
    if algorithm in ("dense", "matmul"):
        return int(shape.images) * channels
    return max(1, int(shape.vector_steps))


def _spatial_pack(config: Any, shape: Geometry, n: int, channels: int) -> int:
    rows = shape.height // config.group_rows if config.group_rows else 1
    if config.depth_chunk:
        return n * rows * (1 if config.depth_outer and channels > 1 else channels)
    inner = 1 if config.group_rows else _whole(shape.height, config.oh_tile)
    return n * rows * channels * inner


def _whole(extent: int, tile: int) -> int:
    """Tiles of a loop; 1 where they do not divide it: it is peeled."""
    return extent // tile if extent % tile == 0 else 1


def speed_up(count: int, num_threads: int) -> float:
    """Of so many shares on so many threads."""
    return count / math.ceil(count / num_threads)
