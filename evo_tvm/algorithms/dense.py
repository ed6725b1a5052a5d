"""Products of a matrix and constant weights, packed in the order in which they are read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from evo_tvm.algorithms._base import Algorithm
from evo_tvm.algorithms._register_tile import image_cycles, register_tile
from evo_tvm.kernels.dense import dense
from evo_tvm.kernels.matmul import depth_chunk
from evo_tvm.kernels.pack import Packing
from evo_tvm.schedules import dense as schedules
from evo_tvm.schedules.dense import Config
from evo_tvm.target import Target
from evo_tvm.workload import Workload

if TYPE_CHECKING:
    from tvm import te, tirx
    from tvm.s_tir import Schedule

    from evo_tvm.graph import Op
    from evo_tvm.kernels.lower_group import Lowering

#: One row needs this many panels at a time: two multiply-adds a cycle, each of which takes four.
_PANELS_OF_ONE_ROW = 8
#: With as many rows, two panels at a time keep the units busy.
_ROWS_OF_TWO_PANELS = 8


class Dense(Algorithm):
    """Rows by panels of output channels in registers, over chunks of the depth."""

    name = "dense"
    operator = "dense"
    config_type = Config

    def refuse(self, workload: Workload, target: Target) -> str | None:
        """It fits all."""
        return None

    def default(self, workload: Workload, target: Target, num_threads: int) -> Config:
        """The register tile that takes the fewest cycles; sums put aside as rounding asks."""
        rows, depth, width = sizes(workload)
        return Config(*tile(rows, depth, width, target), depth_chunk(depth))

    def space(self, workload: Workload, target: Target, num_threads: int) -> Iterable[Config]:
        """Tiles that fit the registers."""
        rows, depth, width = sizes(workload)
        panels = -(-width // target.lanes_f32)
        for row_tile, panel_tile in itertools.product(range(1, min(rows, 28) + 1), (1, 2, 3, 4, 8)):
            used = row_tile * panel_tile + panel_tile + 2
            if panel_tile <= panels and used <= target.vector_registers + (panel_tile == 2):
                if row_tile * panel_tile >= min(8, rows * panels):
                    yield Config(row_tile, panel_tile, depth_chunk(depth))

    def cycles(self, workload: Workload, config: Config, target: Target, num_threads: int) -> float:
        """Arithmetic, or the weights' way from memory."""
        rows, depth, width = sizes(workload)
        panels = -(-width // target.lanes_f32)
        steps = image_cycles(panels, 1, rows, config.panel_tile, 1, config.row_tile)
        return max(depth * steps / 0.95 / num_threads, depth * width * 4 / target.memory_bytes_per_cycle)

    def stage(self, lowering: Lowering, op: Op, config: Config) -> te.Tensor:
        """See `evo_tvm.kernels.dense`: (rows, panels, lanes)."""
        depth, width = lowering.values[op.args[1]].shape
        rows, lanes = math.prod(lowering.out.shape[:-1]), lowering.lanes
        data = lowering.matrix(op.args[0], (rows, depth))
        panels = -(-width // lanes)
        chunk = config.depth_chunk
        shape = (-(-panels // config.panel_tile), depth // chunk, chunk, config.panel_tile, lanes)
        return dense(data, lowering.constant(op.args[1], Packing("dense", shape)), panels)

    def schedule(self, func: tirx.PrimFunc, config: Config, target: Target) -> Schedule:
        """See `evo_tvm.schedules.dense`."""
        return schedules.schedule(func, config, target.lanes_f32)


def sizes(workload: Workload) -> tuple[int, int, int]:
    """(M, K, N)."""
    depth, width = workload.shapes[1]
    return math.prod(workload.output[:-1]), depth, width


def tile(rows: int, depth: int, width: int, target: Target) -> tuple[int, int]:
    """(rows, panels) of the register tile."""
    panels = -(-width // target.lanes_f32)
    if rows == 1:
        return 1, min(panels, _PANELS_OF_ONE_ROW)
    panel_tile, _, row_tile = register_tile(panels, 1, rows, target.vector_registers)
    if panel_tile * depth * target.lanes_f32 * 4 > target.l1_bytes and rows >= _ROWS_OF_TWO_PANELS:
        panel_tile, _, row_tile = register_tile(min(panels, 2), 1, rows, target.vector_registers)
    return row_tile, panel_tile
