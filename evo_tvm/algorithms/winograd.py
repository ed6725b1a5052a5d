"""Winograd convolution F(2x2, 3x3) and F(4x4, 3x3): fewer multiplications for 3x3 kernels of stride 1."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from evo_tvm.algorithms._base import Algorithm, Border
from evo_tvm.algorithms._register_tile import Operand, fits, image_cycles, operand_of, pair_cost, register_tile
from evo_tvm.kernels.pack import Packing
from evo_tvm.kernels.winograd import (
    F2,
    F4,
    MOST_CHANNELS_OF_BYTES,
    PAIR,
    Transform,
    pair_shape,
    transformed_shape,
    winograd_conv2d,
)
from evo_tvm.schedules import winograd
from evo_tvm.schedules.winograd import Config
from evo_tvm.target import Target
from evo_tvm.workload import Workload

if TYPE_CHECKING:
    from tvm import te, tirx
    from tvm.s_tir import Schedule

    from evo_tvm.graph import Op
    from evo_tvm.kernels.parameters import Parameters

#: What a core reads from the last cache and from its second cache, in bytes a cycle.
_LAST_CACHE, _SECOND_CACHE = 6.0, 16.0
#: Share of the weights' way from memory that prefetching does not hide behind the arithmetic.
_NOT_HIDDEN = 0.5
#: Share of the multiply-add peak that the product of transformed tiles reaches.
_PRODUCT_SHARE = 0.75
#: Elements of a transformed tile that lie a multiple of so many bytes apart compete in the first cache: all of them are
#: in an eighth of its places, or less.
_COMPETING_BYTES = 512


class _Winograd(Algorithm):
    """Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016)."""

    operator = "conv2d"
    config_type = Config
    transform: ClassVar[Transform]
    #: Vector instructions that the transforms of an input tile and of an output tile take.
    input_cost: ClassVar[int]
    output_cost: ClassVar[int]

    def refuse(self, workload: Workload, target: Target) -> str | None:
        """3x3, stride and dilation 1, one group, whole blocks of channels."""
        (oc, ic, *kernel), attrs, lanes = workload.shapes[1], workload.attributes, target.lanes_f32
        if kernel != [3, 3]:
            return f"its kernel is {kernel[0]}x{kernel[1]}, not 3x3"
        if attrs["stride"] != (1, 1) or attrs["dilation"] != (1, 1):
            return "its stride or dilation is not 1"
        if attrs["groups"] != (1,):
            return "it is grouped"
        if oc % lanes or ic % lanes:
            return f"its channels are not whole blocks of {lanes}"
        if workload.dtype == "uint8" and ic > MOST_CHANNELS_OF_BYTES:
            return f"sums over more than {MOST_CHANNELS_OF_BYTES} channels of bytes may not fit 32 bits"
        return None

    def default(self, workload: Workload, target: Target, num_threads: int) -> Config:
        """Rows of tiles by their memory traffic, then the best register tile of their product.

        Several threads share out channels instead of rows where each would have to read many weights.
        """
        by_channels = num_threads > 1 and self._weight_bytes(workload) > target.l2_bytes
        rows, _ = self._rows(workload, target, 1 if by_channels else num_threads)
        return self._config(workload, target, rows, by_channels)

    def _config(self, workload: Workload, target: Target, rows: int, by_channels: bool = False) -> Config:
        oc_blocks = workload.output[1] // target.lanes_f32
        down, across = (math.ceil(extent / self.transform.m) for extent in workload.output[2:])
        operand, last = operand_of(target), down % rows
        columns = 2 if operand is Operand.MEMORY else 1  # of one: clearly slower in experiments on Zen 3
        tile = register_tile(
            oc_blocks,
            rows,
            across,
            target.vector_registers,
            whole=True,
            operand=operand,
            last=last,
            columns=columns,
        )
        fetch = target.isa == "x86" and self._weight_bytes(workload) > target.l2_bytes // 2
        return Config(rows, *tile, fetch, by_channels, self._compete(workload, rows), linear_prefetch=fetch)

    def _compete(self, workload: Workload, rows: int) -> bool:
        """Whether the elements of a transformed tile would compete in the first cache."""
        tiles = rows * math.ceil(workload.output[3] / self.transform.m)
        return workload.shapes[1][1] * tiles * _word_bytes(workload) % _COMPETING_BYTES == 0

    def _weight_bytes(self, workload: Workload) -> int:
        oc, ic = workload.shapes[1][:2]
        return (self.transform.m + 2) ** 2 * oc * ic * _word_bytes(workload)

    def space(self, workload: Workload, target: Target, num_threads: int) -> Iterable[Config]:
        """Many numbers of rows, with the register tiles within a quarter of the best, weights fetched ahead or not."""
        down, either = math.ceil(workload.output[2] / self.transform.m), (False, True)
        for rows in range(1, down + 1):
            if rows == down or down % rows == 0 or rows <= 8:
                spread = self._compete(workload, rows)
                for tile in self._register_tiles(workload, target, rows):
                    for fetch, by_channels in itertools.product(either, either[: min(num_threads, 2)]):
                        yield Config(rows, *tile, fetch, by_channels, spread, linear_prefetch=fetch)

    def _register_tiles(self, workload: Workload, target: Target, rows: int) -> list[tuple[int, int, int]]:
        blocks, across = workload.output[1] // target.lanes_f32, math.ceil(workload.output[3] / self.transform.m)
        operand = operand_of(target)
        cycles = {
            (o, i, j): image_cycles(blocks, rows, across, o, i, j, operand=operand)
            for o, i, j in itertools.product((1, 2, 4), range(1, min(rows, 8) + 1), range(1, min(across, 28) + 1))
            if blocks % o == 0 and fits(o, i * j, target.vector_registers, operand=operand)
        }
        return [tile for tile, taken in cycles.items() if taken <= 1.25 * min(cycles.values())]

    def border(self, workload: Workload, config: Config) -> Border:
        """As far as whole tiles reach beyond the image."""
        top, left, _, _ = workload.attributes["padding"]
        _, _, *data = workload.shapes[0]
        height, width = (math.ceil(e / self.transform.m) * self.transform.m + 2 for e in workload.output[2:])
        return top, left, height - top - data[0], width - left - data[1]

    def cycles(self, workload: Workload, config: Config, target: Target, num_threads: int) -> float:
        """Arithmetic at the shares above, weights from memory, tiles transformed."""
        m, lanes = self.transform.m, target.lanes_f32
        n, oc, height, width = workload.output
        ic, across = workload.shapes[1][1], math.ceil(width / m)
        tiles = n * math.ceil(height / m) * across
        tile = (config.oc_tile, config.row_tile, config.column_tile)
        rows = min(config.group_rows, math.ceil(height / m))
        per_step = image_cycles(oc // lanes, rows, across, *tile, operand=operand_of(target))
        per_step *= n * math.ceil(height / m) / rows
        steps = (m + 2) ** 2 * ic / (PAIR / pair_cost(target) if workload.dtype == "uint8" else 1)
        product = steps * per_step / _PRODUCT_SHARE
        transforms = tiles * (ic * self.input_cost + oc * self.output_cost) / lanes
        traffic = self._rows(workload, target, 1 if config.by_channels else num_threads)[1]
        return (product + transforms) / num_threads + (_NOT_HIDDEN if config.prefetch else 1.0) * traffic

    def _rows(self, workload: Workload, target: Target, num_threads: int) -> tuple[int, float]:
        """(rows of tiles to transform together, cycles that reading weights and transformed tiles then takes).

        The weights are read once a group of rows, and the group's tiles once for every two blocks of output channels:
        more rows spare weights until the tiles overflow the second cache. There is a group for each thread at least.
        """
        m = self.transform.m
        (n, oc, height, width), ic = workload.output, workload.shapes[1][1]
        down, across = math.ceil(height / m), math.ceil(width / m)
        word = _word_bytes(workload)
        weights_bytes, row_bytes = (m + 2) ** 2 * ic * oc * word, (m + 2) ** 2 * ic * across * word

        def traffic(rows: int) -> float:
            groups, passes = n * math.ceil(down / rows), max(1.0, oc / target.lanes_f32 / 2)
            kept = rows * row_bytes <= target.l2_bytes * 6 // 10
            tiles = 0.0 if kept else groups * (passes + 2) * rows * row_bytes / _LAST_CACHE  # written, and read back
            again = target.memory_bytes_per_cycle if weights_bytes > target.l3_bytes // 2 else _LAST_CACHE
            again = _SECOND_CACHE if weights_bytes <= target.l2_bytes // 2 else again
            return weights_bytes / target.memory_bytes_per_cycle + (groups - 1) * weights_bytes / again + tiles

        def waiting(rows: int) -> float:
            """Cycles that the other threads wait for the one with most rows."""
            most = math.ceil(n * math.ceil(down / rows) / num_threads) * rows
            steps = (m + 2) ** 2 * ic * oc / target.lanes_f32 / 2 * across
            return steps * max(0.0, most - n * down / num_threads)

        best = min(range(1, math.ceil(down / num_threads) + 1), key=lambda rows: traffic(rows) + waiting(rows))
        return best, traffic(best)

    def stage(self, parameters: Parameters, op: Op, config: Config) -> te.Tensor:
        """See `evo_tvm.kernels.winograd`."""
        data = parameters.data(op.args[0], op.attrs["border"])
        oc, ic = parameters.values[op.args[1]].shape[:2]
        block = parameters.out.layout.block
        lanes = config.oc_tile * block
        if parameters.values[op.args[0]].dtype == "uint8":
            packing = Packing(f"{self.name}_bytes", pair_shape(oc, ic, lanes))
        else:
            packing = Packing(self.name, transformed_shape(oc, ic, self.transform, lanes))
        return winograd_conv2d(data, parameters.constant(op.args[1], packing), parameters.image, self.transform, block)

    def schedule(self, func: tirx.PrimFunc, config: Config, target: Target) -> Schedule:
        """See `evo_tvm.schedules.winograd`."""
        return winograd.schedule(func, self.transform.m, config)


def _word_bytes(workload: Workload) -> int:
    """Bytes of a number in transformed tiles."""
    return 2 if workload.dtype == "uint8" else 4


class Winograd2(_Winograd):
    """F(2x2, 3x3): 2.25 times fewer multiplications. Of bytes it computes in 16 bits, exactly."""

    name = "winograd2"
    dtypes = frozenset({"float32", "uint8"})
    transform = F2
    input_cost, output_cost = 48, 36


class Winograd4(_Winograd):
    """F(4x4, 3x3): 4 times fewer multiplications."""

    name = "winograd4"
    transform = F4
    input_cost, output_cost = 220, 170
