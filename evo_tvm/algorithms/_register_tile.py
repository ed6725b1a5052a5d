"""The register tile of a product of pixels and channels that takes the fewest cycles."""

from __future__ import annotations

import itertools
from functools import cache

from evo_tvm.target import Target


@cache
def register_tile(
    blocks: int, height: int, width: int, registers: int, whole: bool = False, vectors: int = 1
) -> tuple[int, int, int]:
    """(channel blocks, rows, columns) of the register tile that takes the fewest cycles, edges included.

    A tile of `o` channel blocks by `p` pixels needs o*p accumulators, o weights and one broadcast pixel. `whole`: only
    tiles whose channel blocks divide `blocks`. vectors: registers that a block takes.
    """
    shapes = [
        (o, i, j)
        for o, i, j in itertools.product((2, 4, 1), (2, 1, 3, 4, 5, 6, 7, 8), range(1, registers))
        if o <= blocks
        and i <= height
        and j <= width
        and (o * i * j + o) * vectors + 2 <= registers + (o * vectors == 2)
        if not (whole and blocks % o)
    ]
    return min(shapes, key=lambda s: round(image_cycles(blocks, height, width, s[0], s[1], s[2], vectors), 3))


def image_cycles(blocks: int, height: int, width: int, o: int, i: int, j: int, vectors: int = 1) -> float:
    """Cycles of one step of the reduction over all tiles of an image, those at the edges included."""
    total = 0.0
    for channel_blocks, times_o in ((o, blocks // o), (blocks % o, 1)):
        for rows, times_i in ((i, height // i), (height % i, 1)):
            for columns, times_j in ((j, width // j), (width % j, 1)):
                total += times_o * times_i * times_j * _tile_cycles(channel_blocks * vectors, rows * columns)
    return total


def _tile_cycles(o: int, pixels: int) -> float:
    """o*p multiply-adds and o + p loads, two of each a cycle, and at least one multiply-add's latency (4 cycles)."""
    return max(o * pixels / 2, (o + pixels) / 2, 4.0) + 0.3 if o * pixels else 0.0


def dot_cost(target: Target) -> float:
    """What a step of four products of bytes takes, as multiples of a float32 multiply-add; measured on x86."""
    return {"pmaddwd": 4.9, "smlal": 2.5, "vwmacc": 4.0, None: 4.0}.get(target.dot_instruction, 1.0)


def pair_cost(target: Target) -> float:
    """The same of a step of two products of 16 bits."""
    return {"pmaddwd": 1.5, "smlal": 2.0, "sdot": 2.0, "usdot": 2.0, "vwmacc": 2.0, None: 2.0}.get(
        target.dot_instruction, 1.0
    )
