"""Products of a matrix and constant weights, packed in the order in which they are read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from evo_tvm.algorithms._base import Algorithm
from evo_tvm.algorithms._register_tile import fits, image_cycles, operand_of, register_tile
from evo_tvm.algorithms.spatial_pack import dot_terms
from evo_tvm.kernels.dense import dense, dense_dot
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
    from evo_tvm.kernels.parameters import Parameters

#: One row needs this many panels at a time: two multiply-adds a cycle, each of which takes four.
_PANELS_OF_ONE_ROW = 8
#: With as many rows, two panels at a time keep the units busy.
_ROWS_OF_TWO_PANELS = 8
#: Lines this far apart share a set or two of the first cache, which holds eight of each.
_ALIASED_BYTES = 2048
#: As many rows at such a distance stay there beside the weights.
_ALIASED_ROWS = 6


class Dense(Algorithm):
    """Rows by panels of output channels in registers, over chunks of the depth."""

    name = "dense"
    operator = "dense"
    config_type = Config
    dtypes = frozenset({"float32", "uint8"})

    def refuse(self, workload: Workload, target: Target) -> str | None:
        """It fits all."""
        return None

    def default(self, workload: Workload, target: Target, num_threads: int) -> Config:
        """The register tile that takes the fewest cycles; sums put aside as rounding asks."""
        rows, steps, width = sizes(workload)
        if dot_terms(workload.dtype) and workload.shapes[1][0] % _ALIASED_BYTES == 0:
            rows = min(rows, _ALIASED_ROWS)
        return Config(*tile(rows, steps, width, target), _chunk(workload))

    def space(self, workload: Workload, target: Target, num_threads: int) -> Iterable[Config]:
        """Tiles that fit the registers."""
        rows, _, width = sizes(workload)
        panels = -(-width // target.lanes_f32)
        for row_tile, panel_tile in itertools.product(range(1, min(rows, 28) + 1), (1, 2, 3, 4, 6, 8, 12)):
            held = fits(panel_tile, row_tile, target.vector_registers, operand=operand_of(target))
            if panel_tile <= panels and held:
                if row_tile * panel_tile >= min(4, rows * panels):
                    yield Config(row_tile, panel_tile, _chunk(workload))

    def cycles(self, workload: Workload, config: Config, target: Target, num_threads: int) -> float:
        """Arithmetic, or the weights' way from memory."""
        rows, steps, width = sizes(workload)
        panels = -(-width // target.lanes_f32)
        cycles = image_cycles(panels, 1, rows, config.panel_tile, 1, config.row_tile, operand=operand_of(target))
        return max(steps * cycles / 0.95 / num_threads, steps * width * 4 / target.memory_bytes_per_cycle)

    def stage(self, parameters: Parameters, op: Op, config: Config) -> te.Tensor:
        """See `evo_tvm.kernels.dense`: (rows, panels, lanes)."""
        depth, width = parameters.values[op.args[1]].shape
        rows, lanes = math.prod(parameters.out.shape[:-1]), parameters.lanes
        data = parameters.matrix(op.args[0], (rows, depth))
        panels = -(-width // lanes)
        four = dot_terms(parameters.values[op.args[0]].dtype)
        steps = -(-depth // math.prod(four))
        chunk = config.depth_chunk
        shape = (-(-panels // config.panel_tile), steps // chunk, chunk, config.panel_tile, lanes, *four)
        weight = parameters.constant(op.args[1], Packing("dense", shape))
        return dense_dot(data, weight, panels, parameters.centre(op)) if four else dense(data, weight, panels)

    def schedule(self, func: tirx.PrimFunc, config: Config, target: Target) -> Schedule:
        """See `evo_tvm.schedules.dense`."""
        return schedules.schedule(func, config, target.lanes_f32)


def sizes(workload: Workload) -> tuple[int, int, int]:
    """(M, steps of K, N). A step takes 4 bytes of each column's weights: one float, or four bytes."""
    depth, width = workload.shapes[1]
    return math.prod(workload.output[:-1]), -(-depth // math.prod(dot_terms(workload.dtype))), width


def _chunk(workload: Workload) -> int:
    """Steps whose sum is put aside: sums of integers need not be."""
    _, steps, _ = sizes(workload)
    return steps if dot_terms(workload.dtype) else depth_chunk(steps)


def tile(rows: int, steps: int, width: int, target: Target) -> tuple[int, int]:
    """(rows, panels) of the register tile; a step of the depth takes 4 bytes of each column's weights."""
    panels = -(-width // target.lanes_f32)
    if rows == 1:
        return 1, min(panels, _PANELS_OF_ONE_ROW)
    registers, operand = target.vector_registers, operand_of(target)
    panel_tile, _, row_tile = register_tile(panels, 1, rows, registers, operand=operand)
    if panel_tile * steps * target.lanes_f32 * 4 > target.l1_bytes and rows >= _ROWS_OF_TWO_PANELS:
        panel_tile, _, row_tile = register_tile(min(panels, 2), 1, rows, registers, operand=operand)
    return row_tile, panel_tile
