"""Indirect convolution: a table of places instead of a border, for kernels that reach far beyond the image."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from evo_tvm.algorithms._base import Algorithm, Border
from evo_tvm.algorithms._conv_sizes import ConvSizes, pixel_tiles
from evo_tvm.kernels.indirect import indirect_conv2d, indirection
from evo_tvm.kernels.pack import Packing
from evo_tvm.schedules import indirect
from evo_tvm.schedules.indirect import Config
from evo_tvm.target import Target
from evo_tvm.workload import Workload

if TYPE_CHECKING:
    from tvm import te, tirx
    from tvm.s_tir import Schedule

    from evo_tvm.graph import Op
    from evo_tvm.kernels.parameters import Parameters

#: Share of the multiply-add peak that is left beside working out pointers: 10 to 20 % below the direct convolution.
_SHARE = 0.8
#: What a core then reads of weights from the last cache and from its second cache, in bytes a cycle.
_LAST_CACHE, _SECOND_CACHE = 10.0, 16.0
#: Each pixel of a tile takes a pointer; more do not fit x86's general registers.
_MOST_PIXELS = 6


class Indirect(Algorithm):
    """Dukhan, "The Indirect Convolution Algorithm" (2019)."""

    name = "indirect"
    operator = "conv2d"
    config_type = Config

    def refuse(self, workload: Workload, target: Target) -> str | None:
        """One group."""
        return "it is grouped" if workload.attributes["groups"] != (1,) else None

    def default(self, workload: Workload, target: Target, num_threads: int) -> Config:
        """The quickest register tile with a pointer for each pixel."""
        return Config(*pixel_tiles(ConvSizes.of(workload, target), target, _MOST_PIXELS)[0])

    def space(self, workload: Workload, target: Target, num_threads: int) -> Iterable[Config]:
        """The quicker half of the register tiles, pointers worked out once for 1 to 16 channels."""
        sizes = ConvSizes.of(workload, target)
        tiles = pixel_tiles(sizes, target, _MOST_PIXELS + 1)
        for tile in tiles[: max(1, len(tiles) // 2)]:
            for unroll in (1, 2, 4, 8, 16) if sizes.ib > 1 else (1,):
                yield Config(*tile, unroll)

    def border(self, workload: Workload, config: Any) -> Border:
        """One row of zeros, to which all taps in the padding point."""
        return (1, 0, 0, 0) if any(workload.attributes["padding"]) else (0, 0, 0, 0)

    def cycles(self, workload: Workload, config: Config, target: Target, num_threads: int) -> float:
        """Arithmetic at the share above, or reading the weights again for each tile of pixels; once from memory."""
        sizes = ConvSizes.of(workload, target)
        arithmetic = sizes.product_cycles(config.oc_tile, config.pixel_tile) / _SHARE
        kept = sizes.weight_bytes * config.oc_tile <= target.l2_bytes * 6 // 10 * sizes.oc_blocks
        passes = sizes.n * math.ceil(sizes.pixels / config.pixel_tile)
        reading = passes * sizes.weight_bytes / (_SECOND_CACHE if kept else _LAST_CACHE)
        return max(arithmetic, reading) / num_threads + sizes.weight_bytes / target.memory_bytes_per_cycle

    def stage(self, parameters: Parameters, op: Op, config: Config) -> te.Tensor:
        """See `evo_tvm.kernels.indirect`."""
        border, block = op.attrs["border"], parameters.out.layout.block
        data = parameters.data(op.args[0], border)
        oc, _, kh, kw = parameters.values[op.args[1]].shape
        image = parameters.values[op.args[0]].shape[2:]
        places = _places(image, (kh, kw), op.attrs["stride"], op.attrs["dilation"], op.attrs["padding"], border)
        table, oc_blocks, ib = parameters.table(places), -(-oc // block), int(data.shape[4])
        shape = (-(-oc_blocks // config.oc_tile), kh * kw, int(data.shape[1]), ib, config.oc_tile, block)
        weight = parameters.constant(op.args[1], Packing("indirect", shape))
        return indirect_conv2d(data, table, weight, oc_blocks, parameters.image)

    def schedule(self, func: tirx.PrimFunc, config: Config, target: Target) -> Schedule:
        """See `evo_tvm.schedules.indirect`."""
        return indirect.schedule(func, config)


@lru_cache(maxsize=32)
def _places(*arguments: Any) -> np.ndarray:
    """One table for all convolutions that read the same places."""
    return indirection(*arguments)
