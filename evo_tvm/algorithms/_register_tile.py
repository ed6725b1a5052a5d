"""The register tile of a product of pixels and channels that takes the fewest cycles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache

from evo_tvm.target import Target

#: Registers that one RISC-V instruction loads at most; with LMUL 1, registers that a block's sums take.
_LOADED_TOGETHER = 4
#: Sums that a RISC-V core needs at once: a multiply-add's latency (4 to 6 cycles), one of them a cycle.
_LATENCY = 6
#: Numbers in a vector register of AArch64.
_LANES = 4


class Operand(Enum):
    """Where an instruction that multiplies a vector of weights by a pixel takes the pixel from."""

    #: From memory: x86. Each pixel is broadcast, by the load or by the instruction itself.
    MEMORY = 0
    #: From a scalar register: RISC-V with V.
    SCALAR = 1
    #: A lane of a vector, AArch64: a load serves four terms of a pixel,
    LANE = 2
    #: or, of bytes in blocks of four channels, four neighbouring pixels.
    NEIGHBOURS = 3
    #: From a scalar register, of bytes: weights are taken apart into a register for each of the four terms.
    TERMS = 4


def operand_of(target: Target, dtype: str = "float32") -> Operand:
    """That of `target`. dtype: of the pixels, where neighbours lie side by side."""
    if target.arch == "aarch64":
        return Operand.NEIGHBOURS if dtype == "uint8" else Operand.LANE
    if target.isa == "riscv" and target.has("v"):
        return Operand.TERMS if dtype == "uint8" else Operand.SCALAR
    return Operand.MEMORY


def fits(o: int, pixels: int, registers: int, vectors: int = 1, operand: Operand = Operand.MEMORY) -> bool:
    """Whether `registers` hold the sums of `o` channel blocks by `pixels`, the weights, and what else there is."""
    o = o * vectors
    if operand is Operand.SCALAR:
        return o * pixels + o <= registers
    if operand is Operand.TERMS:
        return o * pixels + 4 * o + 1 <= registers
    if operand is Operand.LANE:
        return o * pixels + pixels + o < registers
    if operand is Operand.NEIGHBOURS:
        return o * pixels + 2 * math.ceil(pixels / _LANES) + o + 1 < registers
    return o * pixels + o + 2 <= registers + (o == 2)


@cache
def register_tile(
    blocks: int,
    height: int,
    width: int,
    registers: int,
    whole: bool = False,
    vectors: int = 1,
    operand: Operand = Operand.MEMORY,
    last: int = 0,
    columns: int = 1,
) -> tuple[int, int, int]:
    """(channel blocks, rows, columns) of the register tile that takes the fewest cycles, edges included.

    A tile of `o` channel blocks by `p` pixels needs o*p accumulators, o weights and one broadcast pixel. `whole`: only
    tiles whose channel blocks divide `blocks`. vectors: registers that a block takes. last: rows of the last image,
    where it has fewer; only tiles whose rows divide them, as others are guarded at each step there. columns: of a tile
    at least, where the image has as many.
    """
    channels = (2, 3, 4, 5, 6, 8, 1) if operand in (Operand.LANE, Operand.NEIGHBOURS) else (2, 4, 1)
    rows = (1,) if operand is Operand.NEIGHBOURS else (2, 1, 3, 4, 5, 6, 7, 8)
    shapes = [
        (o, i, j)
        for o, i, j in itertools.product(channels, rows, range(1, registers))
        if o <= blocks and i <= height and j <= width and fits(o, i * j, registers, vectors, operand)
        if not (whole and blocks % o) and last % i == 0 and j >= min(columns, width)
    ]

    def cycles(tile: tuple[int, int, int]) -> float:
        o, i, j = tile
        return round(image_cycles(blocks, height, width, o, i, j, vectors, operand), 3)

    return min(shapes, key=cycles)


def image_cycles(
    blocks: int,
    height: int,
    width: int,
    o: int,
    i: int,
    j: int,
    vectors: int = 1,
    operand: Operand = Operand.MEMORY,
) -> float:
    """Cycles of one step of the reduction over all tiles of an image, those at the edges included."""
    total = 0.0
    for channel_blocks, times_o in ((o, blocks // o), (blocks % o, 1)):
        for rows, times_i in ((i, height // i), (height % i, 1)):
            for columns, times_j in ((j, width // j), (width % j, 1)):
                if channel_blocks * rows * columns:
                    times = times_o * times_i * times_j
                    total += times * _CYCLES[operand](channel_blocks * vectors, rows * columns)
    return total


def _from_memory(o: int, pixels: int) -> float:
    """o*p multiply-adds and o + p loads, two of each a cycle, and at least one multiply-add's latency (4 cycles)."""
    return max(o * pixels / 2, (o + pixels) / 2, 4.0) + 0.3


def _by_scalar(o: int, pixels: int) -> float:
    """The same on RISC-V: one instruction a cycle, o*p multiply-adds, a load for each pixel, and for up to four blocks
    a load and the addition that makes its address."""
    return max(o * pixels, _LATENCY) + pixels + 2 * math.ceil(o / _LOADED_TOGETHER)


def _by_terms(o: int, pixels: int) -> float:
    """The same of bytes, a quarter of a step of four terms: ten instructions load the weights of a block and take them
    apart."""
    return max(o * pixels, _LATENCY) + pixels + 10 * o / 4


def _by_lane(o: int, pixels: int) -> float:
    """On AArch64: two multiply-adds a cycle, and four instructions. A load fills one register with pixels, or two with
    weights; the loop takes four instructions for four terms."""
    return max(o * pixels / 2, 4.0) + (o / 2 + pixels / _LANES + 1) / 4


def _by_neighbours(o: int, pixels: int) -> float:
    """The same of bytes: pixels are also made signed, and the loop takes its instructions for one step."""
    return max(o * pixels / 2, 4.0) + (o / 2 + 2 * math.ceil(pixels / _LANES) + 4) / 4


_CYCLES: Mapping[Operand, Callable[[int, int], float]] = {
    Operand.MEMORY: _from_memory,
    Operand.SCALAR: _by_scalar,
    Operand.LANE: _by_lane,
    Operand.NEIGHBOURS: _by_neighbours,
    Operand.TERMS: _by_terms,
}


def dot_cost(target: Target) -> float:
    """What a step of four products of bytes takes, as multiples of a float32 multiply-add; measured on x86."""
    return {"pmaddwd": 4.9, "smlal": 2.5, "vwmacc": 4.0, None: 4.0}.get(target.dot_instruction, 1.0)


def pair_cost(target: Target) -> float:
    """The same of a step of two products of 16 bits."""
    return {"pmaddwd": 1.5, "smlal": 2.0, "sdot": 2.0, "usdot": 2.0, "vwmacc": 2.0, None: 2.0}.get(
        target.dot_instruction, 1.0
    )
