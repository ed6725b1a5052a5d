"""What the estimates of convolutions that multiply matrices share."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evo_tvm.algorithms._register_tile import Operand, fits, image_cycles, operand_of
from evo_tvm.target import Target
from evo_tvm.workload import Workload, blocks_of


@dataclass(frozen=True)
class ConvSizes:
    """A convolution as a product of (pixels, depth) and (depth, channels): a vector is a block of output channels.

    ib, lanes: channels in a block of the input and of the output; pixels: of one image. operand: where its
    multiply-adds take pixels from.
    """

    n: int
    oc_blocks: int
    ic_blocks: int
    ib: int
    taps: int
    pixels: int
    lanes: int
    operand: Operand

    @staticmethod
    def of(workload: Workload, target: Target) -> ConvSizes:
        """The sizes of a "conv2d"."""
        (_, channels, _, _), (oc, _, kh, kw) = workload.shapes
        n, _, height, width = workload.output
        ib, ob = blocks_of(workload, target.lanes_f32)
        blocks = math.ceil(oc / ob), math.ceil(channels / ib)
        return ConvSizes(n, *blocks, ib, kh * kw, height * width, ob, operand_of(target))

    @property
    def depth(self) -> int:
        """Terms of a result, idle lanes included."""
        return self.ic_blocks * self.ib * self.taps

    @property
    def weight_bytes(self) -> int:
        """Of the packed weights."""
        return self.oc_blocks * self.lanes * self.depth * 4

    def product_cycles(self, oc_tile: int, pixel_tile: int) -> float:
        """The multiply-adds, over all tiles."""
        tile = (oc_tile, 1, pixel_tile)
        return self.n * self.depth * image_cycles(self.oc_blocks, 1, self.pixels, *tile, operand=self.operand)


def pixel_tiles(sizes: ConvSizes, target: Target, most_pixels: int) -> list[tuple[int, int]]:
    """(blocks of output channels, pixels) of the register tiles that the registers hold, the quickest first."""
    tiles = [
        (o, p)
        for o in (2, 4, 1, 3)
        for p in range(1, min(sizes.pixels, most_pixels) + 1)
        if o <= sizes.oc_blocks and fits(o, p, target.vector_registers, operand=operand_of(target))
    ]
    return sorted(tiles, key=lambda tile: round(sizes.product_cycles(*tile), 3))
