"""Products of two activations, such as attention's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from evo_tvm.algorithms._base import Algorithm
from evo_tvm.algorithms._register_tile import image_cycles, operand_of
from evo_tvm.algorithms.dense import tile
from evo_tvm.kernels.matmul import broadcast_batch, depth_chunk, matmul
from evo_tvm.schedules import dense as schedules
from evo_tvm.schedules.dense import Config
from evo_tvm.target import Target
from evo_tvm.workload import Workload

if TYPE_CHECKING:
    from tvm import te, tirx
    from tvm.s_tir import Schedule

    from evo_tvm.graph import Op
    from evo_tvm.kernels.parameters import Parameters


class Matmul(Algorithm):
    """As dense, with the right operand packed in the kernel, tile by tile.

    Either operand, and the result, may be a transposed view (`evo_tvm.plan.fold_permutes`).
    """

    name = "matmul"
    operator = "matmul"
    config_type = Config

    def refuse(self, workload: Workload, target: Target) -> str | None:
        """It fits all."""
        return None

    def default(self, workload: Workload, target: Target, num_threads: int) -> Config:
        """The register tile that takes the fewest cycles; sums put aside as rounding asks."""
        left, right = _shapes(workload)
        return Config(*tile(left[-2], left[-1], right[-1], target), depth_chunk(left[-1]))

    def cycles(self, workload: Workload, config: Config, target: Target, num_threads: int) -> float:
        """Arithmetic, and two cycles for each element that is packed."""
        left, right = _shapes(workload)
        batch = math.prod(broadcast_batch(left, right))
        panels = -(-right[-1] // target.lanes_f32)
        steps = image_cycles(panels, 1, left[-2], config.panel_tile, 1, config.row_tile, operand=operand_of(target))
        return batch * (left[-1] * steps / 0.95 + 2 * right[-2] * right[-1]) / num_threads

    def stage(self, parameters: Parameters, op: Op, config: Config) -> te.Tensor:
        """See `evo_tvm.kernels.matmul`: (*batch, rows, panels, lanes)."""
        left, right = (
            parameters.strided(op.args[i], op.attrs[f"{side}_shape"], op.attrs[f"{side}_strides"])
            for i, side in enumerate(("left", "right"))
        )
        return matmul(left, right, config.depth_chunk, config.panel_tile, parameters.lanes)

    def schedule(self, func: tirx.PrimFunc, config: Config, target: Target) -> Schedule:
        """See `evo_tvm.schedules.dense`."""
        return schedules.schedule(func, config, target.lanes_f32)


def _shapes(workload: Workload) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of the operands, as the product sees them."""
    return workload.attributes["left_shape"], workload.attributes["right_shape"]
