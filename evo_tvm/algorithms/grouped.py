"""Grouped convolutions whose groups are not whole blocks of channels, in two ways."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from evo_tvm.algorithms._base import Algorithm
from evo_tvm.kernels.grouped import groups_touched, lanewise_conv2d, windowed_conv2d, windowed_shape
from evo_tvm.kernels.pack import Packing
from evo_tvm.schedules import grouped
from evo_tvm.schedules.common import largest_divisor
from evo_tvm.schedules.grouped import Config
from evo_tvm.target import Target
from evo_tvm.workload import Workload, blocks_of

if TYPE_CHECKING:
    from tvm import te, tirx
    from tvm.s_tir import Schedule

    from evo_tvm.graph import Op
    from evo_tvm.kernels.parameters import Parameters

#: Cycles to copy one element into its lane, where the elements come from one vector: 7.5 to 10 for a vector of 16 were
#: measured, and 60 where they come from eight.
_COPY = 0.5
#: Rows of output that share a copy of their input: the copy stays in the first cache.
_ROWS = 8


class _Grouped(Algorithm):
    """After the ends of cardinality in Xie et al., "Aggregated Residual Transformations" (ResNeXt, CVPR 2017)."""

    operator = "conv2d"
    config_type = Config

    def refuse(self, workload: Workload, target: Target) -> str | None:
        """Several groups, which end inside of blocks."""
        (oc, ic_group, _, _), (groups,) = workload.shapes[1], workload.attributes["groups"]
        if groups == 1:
            return "it is not grouped"
        if oc // groups % target.lanes_f32 == 0 and ic_group % target.lanes_f32 == 0:
            return f"its groups are whole blocks of {target.lanes_f32} channels"
        return None

    def default(self, workload: Workload, target: Target, num_threads: int) -> Config:
        """One row by as many pixels as registers hold, if possible a divisor of the row."""
        tile = min(_tiles(workload, target), key=lambda tile: _tile_cycles(workload, *tile))
        return Config(*tile, self._rows(workload, target, num_threads))

    def _rows(self, workload: Workload, target: Target, num_threads: int) -> int:
        return Config().rows

    def space(self, workload: Workload, target: Target, num_threads: int) -> Iterable[Config]:
        """The register tiles within a quarter of the best."""
        tiles = _tiles(workload, target)
        best = min(_tile_cycles(workload, *tile) for tile in tiles)
        for tile in tiles:
            if _tile_cycles(workload, *tile) <= 1.25 * best:
                for rows in self._rows_space(workload):
                    yield Config(*tile, rows)

    def _rows_space(self, workload: Workload) -> Iterable[int]:
        return (Config().rows,)


def _tiles(workload: Workload, target: Target) -> list[tuple[int, int]]:
    """(rows, columns) of pixels that the registers hold, beside a vector of weights."""
    _, _, height, width = workload.output
    return [
        (i, j)
        for i, j in itertools.product((1, 2, 4, 7), range(1, min(width, 28) + 1))
        if i <= height and i * j + 2 <= target.vector_registers
    ]


def _tile_cycles(workload: Workload, oh_tile: int, ow_tile: int) -> float:
    """Cycles of one step of the reduction over all tiles of an image for one block of channels."""
    _, _, height, width = workload.output
    total = 0.0
    for rows, times_i in ((oh_tile, height // oh_tile), (height % oh_tile, 1)):
        for columns, times_j in ((ow_tile, width // ow_tile), (width % ow_tile, 1)):
            total += times_i * times_j * (max((rows * columns + 1) / 2, 4.0) + 0.3 if rows * columns else 0.0)
    return total


class GroupedWindowed(_Grouped):
    """A block of output channels is an ordinary convolution over each group that it touches, zeros in between."""

    name = "grouped_windowed"

    def cycles(self, workload: Workload, config: Config, target: Target, num_threads: int) -> float:
        """Arithmetic, products with zeros included."""
        (oc, ic_group, kh, kw), (groups,) = workload.shapes[1], workload.attributes["groups"]
        _, block = blocks_of(workload, target.lanes_f32)
        windows = sum(min(groups, groups_touched(o, oc // groups, block)) for o in range(math.ceil(oc / block)))
        steps = workload.output[0] * windows * ic_group * kh * kw
        return steps * _tile_cycles(workload, config.oh_tile, config.ow_tile) / 0.8 / num_threads

    def stage(self, parameters: Parameters, op: Op, config: Config) -> te.Tensor:
        """See `evo_tvm.kernels.grouped`."""
        data, groups, block = (
            parameters.data(op.args[0], op.attrs["border"]),
            op.attrs["groups"],
            parameters.out.layout.block,
        )
        oc, ic_group, kh, kw = parameters.values[op.args[1]].shape
        packing = Packing("windowed", windowed_shape(oc, ic_group, groups, (kh, kw), block), (groups,))
        weight = parameters.constant(op.args[1], packing)
        return windowed_conv2d(data, weight, oc, groups, op.attrs["stride"], op.attrs["dilation"])

    def schedule(self, func: tirx.PrimFunc, config: Config, target: Target) -> Schedule:
        """See `evo_tvm.schedules.grouped`."""
        return grouped.schedule_windowed(func, config)


class GroupedLanewise(_Grouped):
    """As a depthwise convolution, over input channels copied into the lanes of the output that want them."""

    name = "grouped_lanewise"

    def _rows(self, workload: Workload, target: Target, num_threads: int) -> int:
        height = workload.output[2]
        rows = largest_divisor(height, _ROWS)
        return rows if rows >= _ROWS // 2 or rows == height else _ROWS

    def _rows_space(self, workload: Workload) -> Iterable[int]:
        height = workload.output[2]
        return sorted({min(height, rows) for rows in (2, 4, 7, 8, 14, 16)})

    def cycles(self, workload: Workload, config: Config, target: Target, num_threads: int) -> float:
        """Arithmetic, and the copies, rows that bands of output rows share copied for each."""
        oc, ic_group, kh, kw = workload.shapes[1]
        attrs, (n, _, height, width) = workload.attributes, workload.output
        _, block = blocks_of(workload, target.lanes_f32)
        vectors = n * math.ceil(oc / block) * ic_group
        arithmetic = vectors * kh * kw * _tile_cycles(workload, config.oh_tile, config.ow_tile) / 0.9
        rows = min(config.rows, height)
        read_rows = math.ceil(height / rows) * ((rows - 1) * attrs["stride"][0] + attrs["dilation"][0] * (kh - 1) + 1)
        read_columns = (width - 1) * attrs["stride"][1] + attrs["dilation"][1] * (kw - 1) + 1
        sources = max(1.0, workload.shapes[0][1] / oc)
        copies = vectors * read_rows * read_columns * sources * block * _COPY
        return (arithmetic + copies) / num_threads

    def stage(self, parameters: Parameters, op: Op, config: Config) -> te.Tensor:
        """See `evo_tvm.kernels.grouped`."""
        data, block = parameters.data(op.args[0], op.attrs["border"]), parameters.out.layout.block
        oc, ic_group, kh, kw = parameters.values[op.args[1]].shape
        weight = parameters.constant(op.args[1], Packing("lanewise", (-(-oc // block), ic_group, kh, kw, block)))
        attrs = op.attrs
        return lanewise_conv2d(data, weight, oc, attrs["groups"], attrs["stride"], attrs["dilation"])

    def schedule(self, func: tirx.PrimFunc, config: Config, target: Target) -> Schedule:
        """See `evo_tvm.schedules.grouped`."""
        return grouped.schedule_lanewise(func, config)
