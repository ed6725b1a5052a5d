"""Depthwise convolution of bytes with dot product instructions, four taps at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from evo_tvm.algorithms._base import Algorithm, Border
from evo_tvm.kernels.depthwise_dot import columns_read, depthwise_dot, fours, shared_by
from evo_tvm.kernels.pack import Packing
from evo_tvm.schedules import depthwise
from evo_tvm.schedules.depthwise import Config
from evo_tvm.target import Target
from evo_tvm.workload import Workload

if TYPE_CHECKING:
    from tvm import te, tirx
    from tvm.s_tir import Schedule

    from evo_tvm.graph import Op
    from evo_tvm.kernels.parameters import Parameters


class DepthwiseDot(Algorithm):
    """A vector of channels at a time; see `evo_tvm.kernels.depthwise_dot`."""

    name = "depthwise_dot"
    operator = "depthwise_conv2d"
    config_type = Config
    dtypes = frozenset({"uint8"})

    def refuse(self, workload: Workload, target: Target) -> str | None:
        """The taps of a row have to lie side by side."""
        _, columns = workload.attributes["dilation"]
        return "its taps lie apart (dilation)" if columns > 1 and workload.shapes[1][3] > 1 else None

    def default(self, workload: Workload, target: Target, num_threads: int) -> Config:
        """The widest strip that divides the row and takes half of the registers."""
        return Config(1, max(self._strips(workload, target.vector_registers // 2)))

    def space(self, workload: Workload, target: Target, num_threads: int) -> Iterable[Config]:
        """Strips of up to three quarters of the registers."""
        height = workload.output[2]
        for rows in (1, 2, 4):
            for columns in self._strips(workload, target.vector_registers * 3 // 4 // rows):
                if rows <= height:
                    yield Config(rows, columns)

    def _strips(self, workload: Workload, limit: int) -> list[int]:
        """Widths of at most `limit` at which no output is apart from those that it shares pixels with."""
        width, share = workload.output[3], self._share(workload)
        if width <= limit:
            return [width]
        whole = [c for c in range(share, limit + 1, share) if width % c == 0]
        return whole if whole and max(whole) * 2 >= limit else [*whole, max(share, limit // share * share)]

    def _share(self, workload: Workload) -> int:
        return shared_by(workload.shapes[1][3], workload.attributes["stride"][1])

    def border(self, workload: Workload, config: Config) -> Border:
        """The padding, and to the right what is read only to be multiplied by zero."""
        top, left, bottom, right = workload.attributes["padding"]
        read = columns_read(workload.output[3], workload.shapes[1][3], workload.attributes["stride"][1])
        return top, left, bottom, max(right, read - left - workload.shapes[0][3])

    def cycles(self, workload: Workload, config: Config, target: Target, num_threads: int) -> float:
        """Two shuffles for each four taps, one multiplication for each output that uses them, and the epilogue."""
        n, c, height, width = workload.output
        _, _, kh, kw = workload.shapes[1]
        vectors = n * math.ceil(c / target.lanes_f32) * height * width
        return vectors * (kh * fours(kw) * (2 / self._share(workload) + 0.5) + 3) / num_threads

    def stage(self, parameters: Parameters, op: Op, config: Config) -> te.Tensor:
        """See `evo_tvm.kernels.depthwise_dot`."""
        block, (_, stride) = parameters.out.layout.block, op.attrs["stride"]
        channels, _, kh, kw = parameters.values[op.args[1]].shape
        data = parameters.data(op.args[0], op.attrs["border"])
        shape = (-(-channels // block), shared_by(kw, stride), kh, fours(kw), block, 4)
        weight = parameters.constant(op.args[1], Packing("depthwise_dot", shape, (stride,)))
        dilation, signed = op.attrs["dilation"][0], parameters.centre(op)
        return depthwise_dot(data, weight, parameters.image, op.attrs["stride"], dilation, signed)

    def schedule(self, func: tirx.PrimFunc, config: Config, target: Target) -> Schedule:
        """See `evo_tvm.schedules.depthwise`."""
        return depthwise.schedule(func, "depthwise", config)
