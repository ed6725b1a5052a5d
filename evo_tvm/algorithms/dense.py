"""Products of a matrix and constant weights, packed in panels of output channels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from evo_tvm.algorithms._base import Algorithm
from evo_tvm.kernels.dense import dense
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


class Dense(Algorithm):
    """Rows by panels of output channels in registers, over chunks of the depth."""

    name = "dense"
    operator = "dense"
    config_type = Config

    def refuse(self, workload: Workload, target: Target) -> str | None:
        """It fits all."""
        return None

    def default(self, workload: Workload, target: Target, num_threads: int) -> Config:
        """As many rows as leave registers for four panels."""
        rows = math.prod(workload.output[:-1])
        return Config(min(rows, target.vector_registers // 5), 4 if rows > 1 else 2, 2)

    def space(self, workload: Workload, target: Target, num_threads: int) -> Iterable[Config]:
        """Tiles that fit the registers."""
        rows = math.prod(workload.output[:-1])
        for row_tile, panel_tile, unroll in itertools.product(range(1, min(rows, 14) + 1), (1, 2, 4, 6), (1, 2, 4)):
            if row_tile * panel_tile + panel_tile + 1 <= target.vector_registers:
                yield Config(row_tile, panel_tile, unroll)

    def cycles(self, workload: Workload, config: Config, target: Target, num_threads: int) -> float:
        """Arithmetic, or the weights' way from memory."""
        rows, (depth, width) = math.prod(workload.output[:-1]), workload.shapes[1]
        arithmetic = rows * depth * width / target.lanes_f32 / 2 / num_threads
        return max(arithmetic, depth * width * 4 / target.memory_bytes_per_cycle)

    def stage(self, lowering: Lowering, op: Op, config: Config) -> te.Tensor:
        """See `evo_tvm.kernels.dense`: (rows, panels, lanes)."""
        depth, width = lowering.values[op.args[1]].shape
        rows = math.prod(lowering.out.shape[:-1])
        data = lowering.matrix(op.args[0], (rows, depth))
        panels = -(-width // lowering.lanes)
        weight = lowering.constant(op.args[1], Packing("dense", (panels, depth, lowering.lanes)))
        return dense(data, weight)

    def schedule(self, func: tirx.PrimFunc, config: Config, target: Target) -> Schedule:
        """See `evo_tvm.schedules.dense`."""
        return schedules.schedule(func, config)
