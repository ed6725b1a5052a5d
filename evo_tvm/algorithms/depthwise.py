"""Depthwise convolution and pooling: a strip of output pixels of one channel block in registers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from evo_tvm.algorithms._base import Algorithm, Border
from evo_tvm.kernels.conv2d import depthwise_conv2d
from evo_tvm.kernels.pack import Packing
from evo_tvm.kernels.pool import pool2d
from evo_tvm.schedules import depthwise
from evo_tvm.schedules.common import largest_divisor
from evo_tvm.schedules.depthwise import Config
from evo_tvm.target import Target
from evo_tvm.workload import Workload

if TYPE_CHECKING:
    from tvm import te, tirx
    from tvm.s_tir import Schedule

    from evo_tvm.graph import Op
    from evo_tvm.kernels.parameters import Parameters


class Depthwise(Algorithm):
    """Each channel by itself, a vector of channels at a time."""

    name = "depthwise"
    operator = "depthwise_conv2d"
    config_type = Config
    stage_name = "depthwise"

    def refuse(self, workload: Workload, target: Target) -> str | None:
        """It fits all."""
        return None

    def default(self, workload: Workload, target: Target, num_threads: int) -> Config:
        """A strip as wide as divides the row, with registers left for the window's weights."""
        width = workload.output[3]
        strip = largest_divisor(width, target.vector_registers // 2)
        return Config(1, strip if strip >= 4 or strip == width else min(width, 8))

    def space(self, workload: Workload, target: Target, num_threads: int) -> Iterable[Config]:
        """Strips of up to three quarters of the registers."""
        _, _, height, width = workload.output
        for rows in range(1, 9):
            for columns in range(1, min(width, 28) + 1):
                if rows <= height and rows * columns <= target.vector_registers * 3 // 4:
                    if rows * columns >= min(6, height * width):
                        yield Config(rows, columns)

    def cycles(self, workload: Workload, config: Config, target: Target, num_threads: int) -> float:
        """Two loads a tap and pixel, two loads a cycle."""
        taps = math.prod(workload.attributes.get("pool_size", workload.shapes[-1][2:]))
        n, c, height, width = workload.output
        return n * math.ceil(c / target.lanes_f32) * height * width * (taps + 2) / num_threads

    def stage(self, parameters: Parameters, op: Op, config: Config) -> te.Tensor:
        """See `evo_tvm.kernels.conv2d`."""
        data, block = parameters.data(op.args[0], op.attrs["padding"]), parameters.out.layout.block
        c, _, kh, kw = parameters.values[op.args[1]].shape
        weight = parameters.constant(op.args[1], Packing("depthwise", (-(-c // block), kh, kw, block)))
        return depthwise_conv2d(data, weight, op.attrs["stride"], op.attrs["dilation"])

    def schedule(self, func: tirx.PrimFunc, config: Config, target: Target) -> Schedule:
        """See `evo_tvm.schedules.depthwise`."""
        return depthwise.schedule(func, self.stage_name, config)


class _Pool(Depthwise):
    dtypes = frozenset({"float32", "uint8"})
    stage_name = "pool"

    def border(self, workload: Workload, config: Config) -> Border:
        """None: its window is cut off at the image's edge."""
        return 0, 0, 0, 0

    def stage(self, parameters: Parameters, op: Op, config: Config) -> te.Tensor:
        """See `evo_tvm.kernels.pool`."""
        names = ("pool_size", "stride", "padding", "dilation", "count_include_pad")
        attrs = {name: op.attrs[name] for name in names}
        return pool2d(parameters.data(op.args[0]), op.kind, out_size=parameters.image, **attrs)


class MaxPool(_Pool):
    """The largest value of each window."""

    name = "pool"
    operator = "max_pool2d"


class AveragePool(_Pool):
    """The mean of each window."""

    name = "pool"
    operator = "avg_pool2d"
