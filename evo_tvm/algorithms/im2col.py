"""Convolution as a product of matrices, over columns that are copied for a block of pixels at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from evo_tvm.algorithms._base import Algorithm
from evo_tvm.algorithms._conv_sizes import ConvSizes, pixel_tiles
from evo_tvm.kernels.im2col import im2col_conv2d
from evo_tvm.kernels.pack import Packing
from evo_tvm.schedules import im2col
from evo_tvm.schedules.im2col import Config
from evo_tvm.target import Target
from evo_tvm.workload import Workload

if TYPE_CHECKING:
    from tvm import te, tirx
    from tvm.s_tir import Schedule

    from evo_tvm.graph import Op
    from evo_tvm.kernels.parameters import Parameters

#: What a core reads from the last cache and from its second cache, in bytes a cycle.
_LAST_CACHE, _SECOND_CACHE = 6.0, 16.0
#: Cycles that a run of a column takes to copy, beside two a vector: as measured on stems.
_RUN = 4.0
_MOST_PIXELS = 14


class Im2col(Algorithm):
    """Chellapilla et al., "High Performance Convolutional Neural Networks for Document Processing" (2006)."""

    name = "im2col"
    operator = "conv2d"
    config_type = Config

    def refuse(self, workload: Workload, target: Target) -> str | None:
        """One group."""
        return "it is grouped" if workload.attributes["groups"] != (1,) else None

    def default(self, workload: Workload, target: Target, num_threads: int) -> Config:
        """The quickest register tile, and as many tiles as have columns in half of the second cache."""
        sizes = ConvSizes.of(workload, target)
        oc_tile, pixel_tile = pixel_tiles(sizes, target, _MOST_PIXELS)[0]
        return Config(oc_tile, pixel_tile, self._tiles(sizes, target, pixel_tile, num_threads))

    def _tiles(self, sizes: ConvSizes, target: Target, pixel_tile: int, num_threads: int) -> int:
        kept = target.l2_bytes // 2 // (sizes.depth * 4 * pixel_tile)
        shared = math.ceil(sizes.pixels * sizes.n / num_threads / pixel_tile)
        return max(1, min(kept, shared, math.ceil(sizes.pixels / pixel_tile)))

    def space(self, workload: Workload, target: Target, num_threads: int) -> Iterable[Config]:
        """The quicker half of the register tiles, columns in a sixteenth to twice the second cache."""
        sizes = ConvSizes.of(workload, target)
        tiles = pixel_tiles(sizes, target, _MOST_PIXELS)
        for oc_tile, pixel_tile in tiles[: max(1, len(tiles) // 2)]:
            middle = self._tiles(sizes, target, pixel_tile, num_threads)
            most = math.ceil(sizes.pixels / pixel_tile)
            for count in sorted({min(max(1, int(middle * f)), most) for f in (0.125, 0.25, 0.5, 0.75, 1, 1.5, 2, 4)}):
                yield Config(oc_tile, pixel_tile, count)

    def cycles(self, workload: Workload, config: Config, target: Target, num_threads: int) -> float:
        """Arithmetic, columns copied, the weights' way from memory and again from cache for each block of pixels."""
        sizes = ConvSizes.of(workload, target)
        arithmetic = sizes.product_cycles(config.oc_tile, config.pixel_tile) / 0.95
        run = sizes.ib * (workload.shapes[1][3] if workload.attributes["dilation"][1] == 1 else 1)
        copies = sizes.n * sizes.pixels * sizes.depth / run * (_RUN + 2 * math.ceil(run / sizes.lanes))
        blocks = sizes.n * math.ceil(sizes.pixels / (config.pixel_tile * config.tiles))
        again = _SECOND_CACHE if sizes.weight_bytes <= target.l2_bytes // 2 else _LAST_CACHE
        traffic = sizes.weight_bytes / target.memory_bytes_per_cycle + (blocks - 1) * sizes.weight_bytes / again
        return (arithmetic + copies) / num_threads + traffic

    def stage(self, parameters: Parameters, op: Op, config: Config) -> te.Tensor:
        """See `evo_tvm.kernels.im2col`."""
        data = parameters.data(op.args[0], op.attrs["border"])
        ib, ob = int(data.shape[4]), parameters.out.layout.block
        oc, _, kh, kw = parameters.values[op.args[1]].shape
        oc_blocks = -(-oc // ob)
        shape = (-(-oc_blocks // config.oc_tile), int(data.shape[1]) * kh * kw * ib, config.oc_tile, ob)
        weight = parameters.constant(op.args[1], Packing("im2col", shape, (ib,)))
        return im2col_conv2d(data, weight, oc_blocks, (kh, kw), op.attrs["stride"], op.attrs["dilation"])

    def schedule(self, func: tirx.PrimFunc, config: Config, target: Target) -> Schedule:
        """See `evo_tvm.schedules.im2col`."""
        return im2col.schedule(func, config)
